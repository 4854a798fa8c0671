"""Label, pretrain and finetune in one go: the same as `helm-scale low-data`; a rerun resumes.

python launch/low_data.py --config low_data
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["low-data", *sys.argv[1:]])
