"""A program that has torch, safetensors and the standard library alone.

Run by `python -I` in a bundle's folder, it runs the code of the model card, then compares with the
golden features. Arguments: folders to import from, where the interpreter was started with -S.
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
INPUTS = ("positions", "atomic_numbers", "edge_index", "batch", "charge", "spin")


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
        inputs = {name: golden[f"{key}.{name}"] for name in INPUTS}
        positions, batch = inputs["positions"].requires_grad_(), inputs["batch"]
        wanted = golden[f"{key}.features"]
        features = backbone(**inputs)
        worst = max(worst, float((features - wanted).detach().abs().max() / wanted.abs().max()))
        pairs = neighbours(positions, batch, backbone.cutoff)
        assert sorted(pairs.T.tolist()) == sorted(inputs["edge_index"].T.tolist()), key
        if len(positions) > 1:
            (gradient,) = torch.autograd.grad(features.square().sum(), positions)
            assert gradient.abs().max() > 0
    assert worst <= 1e-5, worst
    assert not set(FORBIDDEN) & set(sys.modules)
    print(json.dumps({"torch": torch.__version__, "golden_error": worst}))


if __name__ == "__main__":
    main()
