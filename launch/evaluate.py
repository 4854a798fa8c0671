"""Compare predicted Hamiltonians with labels: the same as `helm-scale evaluate`.

python launch/evaluate.py --source runs/pretrain --data data_shards/quickstart --split test
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
