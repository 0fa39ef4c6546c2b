"""One thread for each test process: the small networks gain nothing from more, and workers would fight for cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import torch

torch.set_num_threads(1)
