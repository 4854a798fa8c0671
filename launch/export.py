"""Write or verify a bundle: the same as `helm-scale export`.

python launch/export.py --source runs/pretrain --out runs/bundle
python launch/export.py --out runs/bundle --verify
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
