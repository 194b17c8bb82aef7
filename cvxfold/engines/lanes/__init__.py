"""The lanes engine: compiled kernels whose innermost dimension is the batch."""
