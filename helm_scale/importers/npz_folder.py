"""Read a user's own matrices: a folder of npz files, one molecule each.

Keys are the fields of Molecule:
`atomic_numbers` [N], `positions` [N, 3] Angstrom and `hamiltonian` are needed; `overlap`,
`baseline_hamiltonian`, `energy`, `forces`, `charge`, `spin_multiplicity` are taken where they are.
A matrix is dense [nao, nao] or the upper triangle, row-major, [nao(nao+1)/2], in Hartree. `method`
is JSON text with the fields of Method, or comes from the config.
"""

import json
import zipfile
import zlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from helm_scale.config import ImportConfig
from helm_scale.data.format.codec import MATRICES
from helm_scale.data.format.compatibility import check_same_labels
from helm_scale.importers import published_splits
from helm_scale.importers.source import (
    UNSTATED,
    Address,
    Importer,
    SourceSample,
    from_triangle,
    listed_shells,
)
from helm_scale.reading.identity import read_identity
from helm_scale.reading.numbers import integer, number, numbers
from helm_scale.types import Method, Molecule

DAMAGE = (zipfile.BadZipFile, zlib.error)
METHOD_KEYS = tuple(field.name for field in fields(Method))
NEEDED = {"atomic_numbers", "positions", "hamiltonian"}
KNOWN = {*NEEDED, *MATRICES, "energy", "forces", "charge", "spin_multiplicity", "method"}


class NpzFolder:
    """Files `*.npz` of a folder, sorted by name; the name without its ending is the key.

    Raises:
        ValueError: no such folder, or no npz file in it.
    """

    def __init__(self, path: Path, config: ImportConfig) -> None:
        self._path, self._order = path, config.order
        # Sorted: folders list their files in any order, and shards must not depend on it.
        names = sorted(file.name for file in path.glob("*.npz"))
        if not names:
            raise ValueError(f"{path}: no npz files there; wanted a folder with one per molecule")
        self._names = names
        self.method = self._stated_method(names[0])
        self._basis = config.basis or (self.method.basis if self.method else "")

    def addresses(self) -> list[str]:
        """Names of the files."""
        return self._names

    def read(self, address: Address) -> SourceSample:
        """Read one file.

        Raises:
            ValueError: a damaged file, an unknown or missing key, or a method other than that of
                the first file.
        """
        where, arrays = f"{self._path / str(address)}", self._arrays(str(address))
        strangers, missing = (
            sorted(set(arrays) - KNOWN),
            sorted(NEEDED - set(arrays)),
        )
        # An unknown key is more often a misspelt label than something to leave out.
        if strangers or missing:
            what = f"unknown key '{strangers[0]}'" if strangers else f"no key '{missing[0]}'"
            raise ValueError(f"{where}: {what}; known: {', '.join(sorted(KNOWN))}")
        if "method" in arrays:
            check_same_labels(
                where,
                {"method": self._stated_method(str(address))},
                other=self._names[0],
                wanted={"method": self.method},
                remedy="one dataset holds one method",
            )
        molecule = _molecule(arrays, where)
        matrices = {name: arrays[name] for name in MATRICES if name in arrays}
        return SourceSample(
            molecule=molecule,
            order=self._order,
            shells=listed_shells(self._order, self._basis, molecule.atomic_numbers, where),
            matrices={
                name: _square(matrix, f"{where}: {name}") for name, matrix in matrices.items()
            },
        )

    def splits(self, name: str) -> np.ndarray:
        """A user's folder has no published division."""
        raise published_splits.unknown(str(self._path), name, [])

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        try:
            # No pickle: it runs code. dict reads every array, while the file is open.
            with np.load(self._path / name, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError, KeyError, NotImplementedError, *DAMAGE) as error:
            raise ValueError(f"{self._path / name}: not a sound npz file ({error})") from None

    def _stated_method(self, name: str) -> Method | None:
        """The method record in a file, if there is one."""
        text = self._arrays(name).get("method")
        if text is None:
            return None
        try:
            stated = json.loads(str(text))
            return replace(UNSTATED, **stated)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self._path / name}: method: {error}; wanted JSON with {', '.join(METHOD_KEYS)}"
            ) from None


def _molecule(arrays: dict[str, np.ndarray], where: str) -> Molecule:
    """The molecule of a file, without its matrices."""
    atomic_numbers = _atomic_numbers(arrays["atomic_numbers"], where)
    shape = (len(atomic_numbers), 3)
    charge, multiplicity = read_identity(
        {name: arrays[name] for name in ("charge", "spin_multiplicity") if name in arrays},
        atomic_numbers,
        where,
    )
    forces = numbers(arrays["forces"], shape, f"{where}: forces") if "forces" in arrays else None
    return Molecule(
        key=Path(where).stem,
        atomic_numbers=atomic_numbers,
        positions=numbers(arrays["positions"], shape, f"{where}: positions"),
        charge=charge,
        spin_multiplicity=multiplicity,
        energy=number(arrays["energy"], f"{where}: energy") if "energy" in arrays else None,
        forces=forces,
    )


def _square(matrix: np.ndarray, where: str) -> np.ndarray:
    """A matrix [nao, nao] of a whole one or of its upper triangle."""
    if matrix.dtype.kind not in "iuf":
        raise ValueError(f"{where}: got {matrix.dtype}, wanted real numbers")
    return from_triangle(matrix, where) if matrix.ndim == 1 else matrix


def _atomic_numbers(stored: np.ndarray, where: str) -> np.ndarray:
    """Atomic numbers [N] int64."""
    if stored.dtype.kind not in "iuf" or stored.ndim != 1 or not len(stored):
        raise ValueError(
            f"{where}: atomic_numbers: got {stored.dtype} of shape {stored.shape}, wanted integers"
            " of shape (N,); symbols are not read"
        )
    return np.array([integer(z, f"{where}: atomic_numbers") for z in stored], dtype=np.int64)


NPZ = Importer(open=NpzFolder, licence=None, consistency=20e-6)
