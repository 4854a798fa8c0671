"""Judge a model on a split of a dataset: Hamiltonians, orbitals and energies, beside the true Hamiltonian.

python launch/evaluate.py --source runs/pretrain --data data_shards/quickstart --split test --out runs/evaluation
"""

from helm_scale import build, config

if __name__ == "__main__":
    settings = config.load(config.EvaluateConfig)
    try:
        print(build.evaluate(settings))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
