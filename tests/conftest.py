"""Settings that all tests share."""

import torch

torch.set_num_threads(
    1
)  # the suite runs in parallel processes; more threads would only fight over the cores
