"""A program that has torch, safetensors and the standard library alone; run it in a bundle's folder
by `python -I`.

It runs the code of the model card, then compares with the golden features. Arguments: folders to
import from, where the interpreter was started with -S.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

FORBIDDEN = (
    "helm_scale",
    "numpy",
    "e3nn",
    "pyscf",
    "webdataset",
    "pydantic",
    "yaml",
    "ase",
    "scipy",
    "tqdm",
    "huggingface_hub",
)


def main() -> None:
    """Reproduce the golden features by the card's own code."""
    sys.path += [".", *sys.argv[1:]]
    strangers = [name for name in FORBIDDEN if importlib.util.find_spec(name)]
    assert not strangers, f"in reach: {strangers}"
    import torch
    from safetensors.torch import load_file

    scope: dict[str, Any] = {}
    exec(Path("README.md").read_text().split("```python\n")[1].split("```")[0], scope)
    backbone, neighbours = scope["backbone"], scope["neighbours"]
    assert scope["features"].shape == (3, (backbone.lmax + 1) ** 2, backbone.channels)
    golden, worst = load_file("golden.safetensors"), 0.0
    keys = {name.partition(".")[0] for name in golden}
    assert len(keys) == 5
    for key in keys:
        positions, numbers, edges, batch, charge, spin = (
            golden[f"{key}.{name}"]
            for name in ("positions", "atomic_numbers", "edge_index", "batch", "charge", "spin")
        )
        wanted = golden[f"{key}.features"]
        found = backbone(positions.requires_grad_(), numbers, edges, batch, charge, spin)
        worst = max(worst, float((found - wanted).detach().abs().max() / wanted.abs().max()))
        assert sorted(neighbours(positions, batch, backbone.cutoff).T.tolist()) == sorted(
            edges.T.tolist()
        ), key
        assert (
            len(numbers) == 1
            or torch.autograd.grad(found.square().sum(), positions)[0].abs().max() > 0
        )
    assert worst <= 1e-5, worst
    assert not set(FORBIDDEN) & set(sys.modules)
    print(json.dumps({"torch": torch.__version__, "golden_error": worst}))


if __name__ == "__main__":
    main()
