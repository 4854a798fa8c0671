"""Reads geometry, charge and multiplicity of samples, and leaves their matrices on the disk.

They stand in the first kilobytes of a sample that may have megabytes. CRC-32 covers the whole, so
that it is not checked here.
"""

import json

import numpy as np

from helm_scale.data.format import npz, tar
from helm_scale.data.format.manifest import Manifest
from helm_scale.types import Molecule

ENOUGH = 16384  # bytes: JSON and geometry of some 300 atoms
ARRAYS = ("atomic_numbers", "nao_per_atom", "positions")  # the first three, as codec.py writes them


def read_head(dataset: Manifest, index: int) -> Molecule:
    """Read one sample of a local dataset without its labels.

    Raises:
        ValueError: it cannot be read, or is another one than the manifest lists; names shard and
            key.
    """
    path = dataset.folder / dataset.shards[dataset.shard[index]].name
    size = int(dataset.size[index])
    try:
        with path.open("rb") as file:
            file.seek(int(dataset.offset[index]))
            content = file.read(min(size, ENOUGH))
            try:
                molecule = _parse(content, str(dataset.key[index]))
            except ValueError:  # a longer head, or damage that the whole sample has, too
                content += file.read(size - len(content))
                molecule = _parse(content, str(dataset.key[index]))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{dataset.where(index)}: cannot be read ({error}); run helm-scale shards verify"
        ) from None
    if len(molecule.atomic_numbers) != dataset.atoms[index]:
        raise ValueError(
            f"{dataset.where(index)}: got {len(molecule.atomic_numbers)} atoms, wanted"
            f" {dataset.atoms[index]} as the manifest says; get the shard anew"
        )
    return molecule


def _parse(content: bytes, key: str) -> Molecule:
    members = tar.beginning(memoryview(content))
    header = json.loads(bytes(members[f"{key}.json"]))
    arrays = npz.leading(members[f"{key}.npz"], ARRAYS)
    return Molecule(
        key,
        # copied, so that they do not keep the bytes around them alive
        np.array(arrays["atomic_numbers"]),
        np.array(arrays["positions"]),
        charge=int(header["charge"]),
        spin_multiplicity=int(header["spin_multiplicity"]),
    )
