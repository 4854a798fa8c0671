"""Pretrain a backbone on Hamiltonians; the same command resumes. Exit code 75: stopped on request, start it again.

python launch/pretrain.py --config configs/quickstart.yaml
torchrun --nproc-per-node 2 launch/pretrain.py --config configs/quickstart.yaml --execution.engine fsdp2 --training.micro_batches 2
"""

import logging

from helm_scale import commands, config

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    config.launch(config.PretrainConfig, commands.pretrain)
