"""Make, check and rearrange datasets: `helm-scale shards` as a file.

python launch/shards.py verify data_shards/quickstart
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["shards", *sys.argv[1:]])
