"""Writes and verifies bundles: folders of a backbone that torch and safetensors load alone.

    config.json          what the numbers mean: architecture, axes, units, elements, method, origin
    model.safetensors    all weights of the Hamiltonian model under their canonical names
    model.pt2            the trunk as a torch.export program, for any number of atoms and molecules
    helm_backbone.py     the loader, a copy of export/loader.py
    golden.safetensors   five molecules and their features
    README.md            model card
    SHA256SUMS           checksums of the files above but the card, for `sha256sum -c`

The program keeps float64 positions inside, so that gradients with respect to positions are those of
the model.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from helm_scale.config import ModelConfig, parse, read_record
from helm_scale.export import golden, loader, model_card
from helm_scale.export.program import LayerFeatures, export_program
from helm_scale.files import sha256
from helm_scale.model.helm import Helm
from helm_scale.model.trunk import Trunk
from helm_scale.model.weights import below, load_weights, save_weights
from helm_scale.types import Method

SUMS = "SHA256SUMS"
LOADER = "helm_backbone.py"
WEIGHTS, PROGRAM, GOLDEN = "model.safetensors", "model.pt2", "golden.safetensors"
CHECKED = ("config.json", WEIGHTS, PROGRAM, GOLDEN, LOADER)
FILES = (*CHECKED, "README.md")  # the card is text, which the Hub lets its owner edit


@dataclass(frozen=True)
class Verification:
    """What `verify` checked.

    Attributes:
        files: files whose checksum holds. molecules: golden molecules recomputed.
        program_error, model_error: largest deviation of features through model.pt2 and through this
            package, relative to the largest feature of the molecule.
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
    unfinished = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _write_files(model.to("cpu").eval(), unfinished, model_card.describe(model, method, provenance))
    # rename replaces files but no folder that holds any; between the two lines there is none.
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _write_files(model: Helm, folder: Path, record: dict[str, Any]) -> None:
    """Fill a folder with the files of a bundle, their checksums last."""
    (folder / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / "README.md").write_text(model_card.readme(record))
    # "format" is what transformers and the Hub look for in a safetensors file.
    save_weights(model.state_dict(), folder / WEIGHTS, {"format": "pt"})
    features = golden.compute(model.trunk, model.config)
    save_weights(features, folder / GOLDEN, {"format": "pt"})
    example = golden.batch_of_all(model.config).geometry
    torch.export.save(export_program(LayerFeatures(model.trunk), example), folder / PROGRAM)
    shutil.copyfile(loader.__file__, folder / LOADER)
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in CHECKED))


def verify(folder: Path) -> Verification:
    """Check a bundle's checksums, then recompute the golden features by program and by package.

    Raises:
        ValueError: a file is missing or changed, or features deviate; names file, got, wanted and
            remedy.
    """
    check_sums(folder)
    features = load_weights(folder / GOLDEN)
    # the package first: where both deviate, the weights have changed
    model_error = golden.deviation(trunk(folder), features, str(folder / WEIGHTS))
    program = loader.load(folder)
    program_error = golden.deviation(lambda g: program(*g), features, str(folder / PROGRAM))
    return Verification(
        files=len(CHECKED),
        molecules=sum(name.endswith(".features") for name in features),
        program_error=program_error,
        model_error=model_error,
    )


def check_sums(folder: Path) -> None:
    """Raise ValueError unless every file but the card is there with its checksum.

    What else lies in the folder does not matter, nor do checksums of the card in older bundles.
    """
    if not (folder / SUMS).is_file():
        raise ValueError(
            f"{folder}: no {SUMS}, so this is no bundle; write one with helm-scale export"
        )
    lines = [line.partition("  ") for line in (folder / SUMS).read_text().splitlines()]
    wanted = {name: digest for digest, _, name in lines}
    # By CHECKED and not by the lines: a list that lacks a file must not pass.
    for name in CHECKED:
        path = folder / name
        if name not in wanted or not path.is_file():
            raise ValueError(
                f"{path}: missing from the bundle; copy the bundle again or export it anew"
            )
        got = sha256(path)
        if got != wanted[name]:
            raise ValueError(
                f"{path}: SHA-256 got {got}, wanted {wanted[name]} ({SUMS}): the file changed;"
                " copy the bundle again or export it anew"
            )


def trunk(folder: Path) -> Trunk:
    """Build the trunk from config.json and model.safetensors, in evaluation mode."""
    where = folder / "config.json"
    config = parse(ModelConfig, read_record(where)["model"], str(where))
    network = Trunk(config).to(getattr(torch, config.dtype))
    network.load_state_dict(below("trunk.", load_weights(folder / WEIGHTS)))
    return network.eval()
