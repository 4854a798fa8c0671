"""Compare predicted Hamiltonians with labels: `helm-scale evaluate` as a file.

python launch/evaluate.py --source runs/pretrain --data data_shards/quickstart --split test
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
