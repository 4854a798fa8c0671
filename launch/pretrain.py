"""Pretrain on Hamiltonians: the same as `helm-scale pretrain`, for torchrun and schedulers.

torchrun --nproc-per-node 2 launch/pretrain.py --config quickstart --execution.engine ddp

The same command resumes. Exit code 75: stopped on request, start it again.
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["pretrain", *sys.argv[1:]])
