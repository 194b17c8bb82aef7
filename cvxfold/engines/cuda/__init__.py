"""The lanes engine's kernels on CUDA devices, compiled at run time."""
