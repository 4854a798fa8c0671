"""Read a user's own matrices: a folder of npz files, one molecule each.

Keys are the fields of Molecule:
`atomic_numbers` [N], `positions` [N, 3] Angstrom and `hamiltonian` are needed; `overlap`,
`baseline_hamiltonian`, `energy`, `forces`, `charge`, `spin_multiplicity` are taken where they are.
A matrix is dense [nao, nao] or the upper triangle, row-major, [nao(nao+1)/2], in Hartree. `method`
is JSON text with the fields of Method, or comes from the config.
"""

import json
import zipfile
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
from helm_scale.types import Method, Molecule

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
        numbers = arrays["atomic_numbers"].astype(np.int64)
        molecule = Molecule(
            key=Path(str(address)).stem,
            atomic_numbers=numbers,
            positions=arrays["positions"].astype(np.float64),
            charge=_integer(arrays, "charge", 0),
            spin_multiplicity=_integer(arrays, "spin_multiplicity", 1),
            energy=float(arrays["energy"]) if "energy" in arrays else None,
            forces=arrays["forces"].astype(np.float64) if "forces" in arrays else None,
        )
        if molecule.positions.shape != (len(numbers), 3):
            raise ValueError(
                f"{where}: positions have shape {molecule.positions.shape},"
                f" wanted ({len(numbers)}, 3)"
            )
        matrices = {name: arrays[name] for name in MATRICES if name in arrays}
        return SourceSample(
            molecule=molecule,
            order=self._order,
            shells=listed_shells(self._order, self._basis, numbers, where),
            matrices={
                name: from_triangle(matrix, f"{where}, {name}") if matrix.ndim == 1 else matrix
                for name, matrix in matrices.items()
            },
        )

    def splits(self, name: str) -> np.ndarray:
        """A user's folder has no published division."""
        raise published_splits.unknown(str(self._path), name, [])

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        try:
            with np.load(self._path / name, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
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


def _integer(arrays: dict[str, np.ndarray], name: str, default: int) -> int:
    return int(arrays[name]) if name in arrays else default


NPZ = Importer(open=NpzFolder, licence=None, consistency=20e-6)
