"""Read OMol_CSH_58k (HELM, arXiv:2510.00224), and repair its diffuse shells.

HDF5, packed triangles, wB97M-V/def2-TZVPD by ORCA, no overlap, no energy.

The release was reordered from ORCA's order to m-ascending shells with a list of shells sorted by
degree, although ORCA prints the diffuse shells of def2-TZVPD last: every element whose true list is
not sorted is scrambled. Undoing the reordering with the sorted list and redoing it with the true
one repairs it exactly.

ORCA can take the VV10 correlation of this functional into the SCF or add it afterwards, and then H
has no part of it. The proof of consistency tells the two apart: see docs/datasets.md.
"""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.basis import conventions
from helm_scale.basis.shells import shells_of
from helm_scale.config import ImportConfig
from helm_scale.data.format.shards import KEY
from helm_scale.extras import needs
from helm_scale.importers import published_splits
from helm_scale.importers.source import (
    Address,
    Importer,
    SourceSample,
    from_triangle,
    listed_shells,
)
from helm_scale.types import Method, Molecule

with needs("dft"):
    import h5py

METHOD = Method(
    xc="wb97m-v",
    basis="def2-tzvpd",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-8,
    baseline="none",
    program="ORCA",
)
SIZES = {"train": 57559, "test-5k": 4986, "test-1k": 1008}
ENDING = re.compile(r"_(-?\d+)_(\d+)$")  # of a group's name: charge and multiplicity


class OmolCsh:
    """One HDF5 file of the release; a molecule is any group with `fock`.

    Args:
        config: `repair` says whether the file has the release's defect.
    Raises:
        ValueError: no HDF5 file there.
    """

    def __init__(self, path: Path, config: ImportConfig) -> None:
        self.method: Method | None = METHOD
        self._path, self._repair = path, config.repair
        if not path.is_file():
            raise ValueError(f"{path}: file not found")
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise ValueError(f"{path}: not a sound HDF5 file ({error}); get it anew") from None

    def addresses(self) -> list[str]:
        """Paths of the groups, sorted."""
        groups: list[str] = []

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group) and "fock" in item:
                groups.append(name)

        self._file.visititems(visit)  # depth first, in the order of the file
        return sorted(groups)

    def read(self, address: Address) -> SourceSample:
        """Read one molecule, with its other reading: the file has the defect, or has not."""
        where, group = f"{self._path}, group {address}", self._file[str(address)]
        missing = [name for name in ("elements", "coords") if name not in group]
        if missing:
            raise ValueError(
                f"{where}: no {' or '.join(missing)}; wanted a molecule of OMol_CSH_58k"
            )
        charge, multiplicity = _charge_and_multiplicity(str(address), dict(group.attrs), where)
        numbers = group["elements"][:].astype(np.int64)
        molecule = Molecule(
            key=key_of(str(address)),
            atomic_numbers=numbers,
            positions=group["coords"][:].astype(np.float64),
            charge=charge,
            spin_multiplicity=multiplicity,
        )
        matrix = from_triangle(group["fock"][:], f"{where}, fock")
        sound = SourceSample(
            molecule=molecule,
            order="canonical",
            shells=listed_shells("orca", METHOD.basis, numbers, where),
            matrices={"hamiltonian": matrix},
        )
        in_orca_order = undo_sorted_reordering(matrix, numbers)
        repaired = replace(sound, order="orca", matrices={"hamiltonian": in_orca_order})
        if self._repair:
            remedy = "the file is without the diffuse-shell defect: --repair false"
            return replace(repaired, other_reading=(remedy, sound))
        remedy = "the file has the diffuse-shell defect: --repair true"
        return replace(sound, other_reading=(remedy, repaired))

    def splits(self, name: str) -> np.ndarray:
        """The file as a whole: "train", "test-5k" or "test-1k"."""
        if name not in SIZES:
            raise published_splits.unknown(str(self._path), name, list(SIZES))
        count = len(self.addresses())
        published_splits.check_count(f"{self._path}, split {name}", count, SIZES[name])
        return np.full(count, name.split("-")[0], dtype=object)


def undo_sorted_reordering(matrix: np.ndarray, atomic_numbers: np.ndarray) -> np.ndarray:
    """Bring a matrix [nao, nao] of the release back to ORCA's order, with the true shells.

    Raises:
        ValueError: the matrix has another size than the elements have in def2-TZVPD.
    """
    # The sorted list, by which the release was reordered.
    shells = [shells_of(METHOD.basis, int(z)) for z in atomic_numbers]
    nao = sum(2 * degree + 1 for listed in shells for degree in listed)
    if len(matrix) != nao:
        raise ValueError(
            f"fock has {len(matrix)} rows, wanted {nao} of {METHOD.basis};"
            " the matrices are in another basis"
        )
    return conventions.from_canonical(matrix, "orca", shells)


def key_of(group: str) -> str:
    """Make a key from the path of a group; what has to be changed gets a digest, to be unique."""
    plain = re.sub(r"[^A-Za-z0-9_+=-]", "_", group)
    if plain == group and KEY.fullmatch(plain):
        return plain
    # The end of a long name tells more; with dash and digest it stays within 90 characters.
    return f"{plain[-80:]}-{hashlib.sha256(group.encode()).hexdigest()[:8]}"


def _charge_and_multiplicity(group: str, attributes: dict[str, Any], where: str) -> tuple[int, int]:
    """From the attributes, which the group's name must confirm; `spin` may be 2S or 2S+1.

    Raises:
        ValueError: they contradict each other.
    """
    charge, spin = int(attributes.get("charge", 0)), int(attributes.get("spin", 1))
    ending = ENDING.search(group)
    if ending is None:
        return charge, max(spin, 1)  # 0 is 2S of a closed shell
    named = int(ending.group(1)), int(ending.group(2))
    if charge != named[0] or spin not in (named[1], named[1] - 1):
        raise ValueError(
            f"{where}: attributes say charge {charge}, spin {spin},"
            f" its name says charge {named[0]}, multiplicity {named[1]}"
        )
    return named


def _variant(config: ImportConfig) -> str:
    return "repaired" if config.repair else "not repaired"


OMOL_CSH = Importer(open=OmolCsh, licence="CC-BY-4.0", consistency=50e-6, variant=_variant)
