"""Compute a doubtful step of a run again: the same as `helm-scale replay`.

python launch/replay.py --file runs/pretrain/replay/step-00000123.safetensors
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["replay", *sys.argv[1:]])
