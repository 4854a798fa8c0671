"""Predict Hamiltonians of molecules without labels: extended XYZ in, one npz file per molecule out.

python launch/predict.py --source runs/pretrain --xyz molecules.xyz --out runs/prediction
"""

from helm_scale import commands, config

if __name__ == "__main__":
    config.launch(config.PredictConfig, commands.predict)
