"""Predict Hamiltonians of molecules without labels: the same as `helm-scale predict`.

python launch/predict.py --source runs/pretrain --xyz molecules.xyz --out runs/prediction
"""

import sys

from helm_scale.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
