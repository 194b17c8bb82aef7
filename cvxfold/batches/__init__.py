"""Batches of instances: records with an entry for each, taken apart, put together, worked on in halves."""
