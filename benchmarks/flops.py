"""Floating-point operations of one training step per directed edge (ordered pair of atoms).

Counted by torch's FlopCounterMode on the plain path, without recomputation. The authors' code
spends 902 MFLOP per directed edge at the setting of configs/omol_csh_58k.yaml (arXiv:2510.00224).

    python benchmarks/flops.py [--quick]
"""

from report import command_line, report
from synthetic import Step, model_config
from torch.utils.flop_counter import FlopCounterMode

PUBLISHED = 902.0  # MFLOP per directed edge and step
CONFIGS = {"reference": "omol_csh_58k", "lean": "omol_csh_58k_lean"}


def measure(name: str, atoms: int, quick: bool) -> dict[str, float]:
    """Operations and parameters of one config."""
    step = Step(atoms, model_config(CONFIGS[name], quick))
    step.model.set_memory(pair_chunk=0, recompute="none", message_chunk=1)
    with FlopCounterMode(display=False) as counter:
        step()
    per_edge = counter.get_total_flops() / (atoms * (atoms - 1)) / 1e6
    parts = {"trunk": step.model.trunk, "tower": step.model.pairs.tower}
    millions = {
        f"{part}_million_parameters": sum(p.numel() for p in module.parameters()) / 1e6
        for part, module in parts.items()
    }
    return {
        "atoms": atoms,
        "mflop_per_directed_edge": per_edge,
        "of_published": per_edge / PUBLISHED,
        **millions,
    }


def main() -> None:
    """Both configs; the last line is one JSON object."""
    parser = command_line(__doc__, quick="8 atoms, 8 channels")
    arguments = parser.parse_args()
    rows = {name: measure(name, 8 if arguments.quick else 40, arguments.quick) for name in CONFIGS}
    for name, row in rows.items():
        print(
            f"{name:10s} {row['mflop_per_directed_edge']:8.1f} MFLOP per directed edge, "
            f"{row['of_published']:.3f} of the published 902"
        )
    report("flops", quick=arguments.quick, rows=rows)


if __name__ == "__main__":
    main()
