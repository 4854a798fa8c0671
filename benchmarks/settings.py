"""Which model settings cost least at an equal error?

Variants train the same number of steps, for three seeds, on two sets of molecules (variants.py).

    python benchmarks/settings.py [--quick] [--sets quickstart water] [--seeds 0 1 2]
"""

from typing import Any

from variants import compare, parse

REFERENCE = {
    "num_layers": 2,
    "pair_layers": 2,
    "pair_inputs": "each",
    "trunk_cutoff": 12.0,
    "pair_cutoff": 15.0,
}
LAST = {"pair_inputs": "last"}
VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "two pair layers read the last states": LAST,
    "one pair layer": {**LAST, "pair_layers": 1},
    "one pair layer, trunk 6 A": {**LAST, "pair_layers": 1, "trunk_cutoff": 6.0},
    "one pair layer, trunk 6 A, mmax 2": {**LAST, "pair_layers": 1, "trunk_cutoff": 6.0, "mmax": 2},
}


def model(task: str, variant: str) -> dict[str, Any]:
    """Settings of a variant, the same for every set."""
    return {**REFERENCE, **VARIANTS[variant]}


def main() -> None:
    """All variants, seed by seed; the last line is one JSON object."""
    arguments = parse(__doc__, ["quickstart", "water"])
    compare("settings", arguments, variants=list(VARIANTS), model=model)


if __name__ == "__main__":
    main()
