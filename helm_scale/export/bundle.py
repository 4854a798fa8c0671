"""A bundle: one folder with a pretrained backbone that torch and safetensors load without this
package.

    config.json          what the numbers mean: architecture, axes, units, elements, conventions,
    method, provenance model.safetensors    all weights of the Hamiltonian model under their
    canonical names model.pt2            the trunk as a torch.export program, dynamic in atoms,
    edges and molecules helm_backbone.py     the loader, a copy of export/loader.py
    golden.safetensors   five molecules and their features README.md            model card
    SHA256SUMS           checksums of the files above, `sha256sum -c` reads them

The program keeps float64 positions inside, so gradients with respect to positions are those of the
model.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helm_scale.config import ModelConfig, parse, read_record
from helm_scale.export import golden, loader, model_card
from helm_scale.export.program import States, exported
from helm_scale.files import sha256
from helm_scale.model.helm import Helm
from helm_scale.model.trunk import Trunk
from helm_scale.model.weights import load_weights, save_weights
from helm_scale.types import Method

SUMS = "SHA256SUMS"
LOADER = "helm_backbone.py"
FILES = ("config.json", "model.safetensors", "model.pt2", "golden.safetensors", "README.md", LOADER)


@dataclass(frozen=True)
class Verification:
    """What `verify` found; errors are relative to the largest feature of a golden molecule.

    Attributes:
        files: files whose checksum holds. molecules: golden molecules recomputed.
        program_error, model_error: largest deviation through model.pt2 and through this package.
    """

    files: int
    molecules: int
    program_error: float
    model_error: float


def write(model: Helm, method: Method, folder: Path, provenance: dict[str, Any]) -> None:
    """Write a bundle; it appears as a whole or not at all, and replaces an older bundle.

    Args:
        provenance: where the weights come from (run, step, hash and licence of the data manifest).
    Raises:
        ValueError: the folder exists and is not a bundle.
    """
    if folder.exists() and not (folder / SUMS).is_file() and any(folder.iterdir()):
        raise ValueError(
            f"{folder}: exists and is not a bundle (no {SUMS}); choose another --out or remove it"
        )
    model = model.to("cpu").eval()
    fresh = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    record = model_card.describe(model, method, provenance)
    (fresh / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    save_weights(model.state_dict(), fresh / "model.safetensors", {"format": "pt"})
    torch.export.save(
        exported(States(model.trunk), golden.joined(model.config).geometry),
        fresh / "model.pt2",
    )
    shutil.copyfile(loader.__file__, fresh / LOADER)
    save_weights(
        golden.compute(model.trunk, model.config), fresh / "golden.safetensors", {"format": "pt"}
    )
    (fresh / "README.md").write_text(model_card.readme(record))
    (fresh / SUMS).write_text("".join(f"{sha256(fresh / name)}  {name}\n" for name in FILES))
    for name in (*FILES, SUMS):
        (fresh / name).chmod(0o644)  # safetensors writes for the owner alone
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def verify(folder: Path) -> Verification:
    """Check a bundle's files against SHA256SUMS, then recompute the golden features through program
    and model.

    Raises:
        ValueError: a file is missing or changed, or features deviate; names file, got, wanted and
            remedy.
    """
    check_sums(folder)
    features = load_weights(folder / "golden.safetensors")
    model_error = golden.deviation(trunk(folder), features, str(folder / "model.safetensors"))
    program = loader.load(folder)
    program_error = golden.deviation(
        lambda geometry: program(*geometry), features, str(folder / "model.pt2")
    )
    return Verification(
        len(FILES), sum(name.endswith(".features") for name in features), program_error, model_error
    )


def check_sums(folder: Path) -> None:
    """Raise ValueError unless every file of the bundle is there with its checksum."""
    if not (folder / SUMS).is_file():
        raise ValueError(
            f"{folder}: no {SUMS}, so this is no bundle; write one with helm-scale export"
        )
    lines = [line.partition("  ") for line in (folder / SUMS).read_text().splitlines()]
    wanted = {name: digest for digest, _, name in lines}
    for name in FILES:
        if name not in wanted or not (folder / name).is_file():
            raise ValueError(
                f"{folder / name}: missing from the bundle; copy the bundle again or export it anew"
            )
        got = sha256(folder / name)
        if got != wanted[name]:
            raise ValueError(
                f"{folder / name}: SHA-256 got {got}, wanted {wanted[name]} ({SUMS}): the file changed;"
                " copy the bundle again or export it anew"
            )


def trunk(folder: Path) -> Trunk:
    """The trunk as this package builds it from config.json and model.safetensors, in evaluation
    mode."""
    where = folder / "config.json"
    config = parse(ModelConfig, read_record(where)["model"], str(where))
    found = Trunk(config).to(getattr(torch, config.dtype))
    found.load_state_dict(_below("trunk.", load_weights(folder / "model.safetensors")))
    return found.eval()


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
