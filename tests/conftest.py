"""One thread for every test: the problems are small, and threads that wait for each other only spin."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # of pytest's workers and of the processes that tests start, too

import torch  # noqa: E402

torch.set_num_threads(1)
