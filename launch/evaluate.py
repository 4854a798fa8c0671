"""Judge a model on a split of a dataset: Hamiltonians, orbitals and energies, beside the true Hamiltonian.

python launch/evaluate.py --source runs/pretrain --data data_shards/quickstart --split test --out runs/evaluation
"""

from helm_scale import commands, config

if __name__ == "__main__":
    config.launch(config.EvaluateConfig, commands.evaluate)
