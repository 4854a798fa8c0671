"""Compute a doubtful step of a run again, sample by sample, on one CPU.

python launch/replay.py --file runs/pretrain/replay/step-00000123.safetensors
"""

from helm_scale import commands, config

if __name__ == "__main__":
    config.launch(config.ReplayConfig, commands.replay)
