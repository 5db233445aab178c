"""Every test computes on one thread: results repeat, and tests that run side by side do not fight for cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
