"""What one pass of a flow costs beside regression.

Measured are the seconds of a prediction on one thread, collation included. Per config three models
of the same weights wherever they share them: "plain" without the network of a flow, "regression"
with it at X_t = 0, t = 0 (model.prior: zero), "flow" from a draw of the prior. Molecules are
synthetic organic ones; variants take turns.

    python benchmarks/flow_cost.py [--quick]
"""

import json
import statistics
import time

import torch
from report import command_line, report
from synthetic import molecule

from helm_scale.config import ModelConfig, PretrainConfig, load
from helm_scale.data.graphs.collate import collate
from helm_scale.model.helm import Helm

PRIORS = {"plain": "off", "regression": "zero", "flow": "irreps"}


def configs(name: str, quick: bool) -> dict[str, ModelConfig]:
    """The model of configs/<name>.yaml in every variant."""
    narrow = (
        ["--model.channels=8", "--model.hidden_channels=8", "--model.edge_channels=8"]
        if quick
        else []
    )
    arguments = ["--config", f"configs/{name}.yaml", *narrow]
    return {
        variant: load(PretrainConfig, [*arguments, f"--model.prior={prior}"]).model
        for variant, prior in PRIORS.items()
    }


def compare(name: str, atoms: int, *, repeats: int, quick: bool) -> dict[str, float | str | int]:
    """Median seconds of every variant, and ratios to regression and to the plain model."""
    torch.manual_seed(0)
    models = {variant: Helm(config).eval() for variant, config in configs(name, quick).items()}
    seconds: dict[str, list[float]] = {variant: [] for variant in models}
    for _ in range(repeats + 1):
        for variant, model in models.items():
            start = time.process_time()
            with torch.no_grad():
                model(collate([molecule(atoms)], model.config))
            seconds[variant].append(time.process_time() - start)
    median = {variant: statistics.median(times[1:]) for variant, times in seconds.items()}
    ratios = {
        "flow_to_regression": median["flow"] / median["regression"],
        "flow_to_plain": median["flow"] / median["plain"],
    }
    return {
        "config": name,
        "atoms": atoms,
        **{f"{variant}_seconds": time for variant, time in median.items()},
        **ratios,
    }


def main() -> None:
    """All sizes of both configs; the last line is one JSON object."""
    parser = command_line(__doc__, quick="8 channels, two sizes, 3 repeats")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in ("water_flow", "qhflow2_s"):
        for atoms in (3, 6) if arguments.quick else (3, 10, 20, 30):
            repeats = 3 if arguments.quick else max(10, 60 // atoms)
            rows.append(compare(name, atoms, repeats=repeats, quick=arguments.quick))
            print(json.dumps(rows[-1]), flush=True)
    report("flow_cost", quick=arguments.quick, rows=rows)


if __name__ == "__main__":
    main()
