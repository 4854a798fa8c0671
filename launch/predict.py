"""Predict Hamiltonians of molecules without labels: `helm-scale predict` as a file.

python launch/predict.py --source runs/pretrain --xyz molecules.xyz --out runs/prediction
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
