"""What every test process needs before it starts."""

import os
import signal

# One thread each: the small networks gain nothing from more, and several processes would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import torch

torch.set_num_threads(1)

# A runner in the background hands down an ignored Ctrl-C or hang-up, and the tests of them would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
