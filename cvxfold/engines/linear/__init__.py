"""Matrices and factorizations, batched or shared by the batch."""
