"""Learn energies from few labels: the same as `helm-scale finetune`.

python launch/finetune.py --source runs/bundle --data data_shards/quickstart --out runs/finetune
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
