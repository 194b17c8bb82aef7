"""How fast, against others, and who is right: the same problems side by side in one process."""
