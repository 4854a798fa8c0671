"""Make, check and rearrange datasets: the same as `helm-scale shards`.

python launch/shards.py verify data_shards/quickstart
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["shards", *sys.argv[1:]])
