"""Encodes a molecule as the two members of a sample, readable JSON and an npz, and decodes it.

The format is described in data_shards/README.md.

A symmetric matrix is stored as one triangle: on-site blocks in float64, off-site blocks in float32
and, for the few elements too large for float32, a sparse remainder. The sum is exact to 1.5e-8
Hartree (half a float32 step below 0.5).

Axes: N atoms, n_i AOs of atom i.
"""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from helm_scale.basis.layout import ao_offsets
from helm_scale.data.format import npz
from helm_scale.types import Method, Molecule

Buffer = bytes | bytearray | memoryview
VERSION = 1
MATRICES = ("hamiltonian", "baseline_hamiltonian", "overlap")
LABELS = (*MATRICES, "energy", "forces")
FLOAT32_LIMIT = 0.5  # larger off-site elements carry a remainder
SYMMETRY_LIMIT = 1e-6  # largest |M - M^T| that counts as round-off, Hartree


def labels_of(molecule: Molecule) -> tuple[str, ...]:
    """List the labels that a molecule has."""
    labels = [name for name in LABELS if getattr(molecule, name) is not None]
    return (*labels, *sorted(molecule.properties))


def encode(molecule: Molecule) -> dict[str, bytes]:
    """Turn a molecule into the bytes of its members, {"json": ..., "npz": ...}.

    Raises:
        ValueError: no method record; a matrix that holds NaN, is not symmetric or has the wrong
            size; energy, forces or a property that are not finite; names the molecule.
    """
    if molecule.method is None:
        raise ValueError(
            f"molecule '{molecule.key}': no method record; labels without one cannot be stored"
        )
    _check_labels(molecule)
    header = {
        "version": VERSION,
        "key": molecule.key,
        "charge": molecule.charge,
        "spin_multiplicity": molecule.spin_multiplicity,
        "energy": None if molecule.energy is None else float(molecule.energy),
        "labels": labels_of(molecule),
        "method": asdict(molecule.method),
    }
    # Readers that do not know the next two keys leave them alone, so they need no new version.
    if molecule.scf_retry:
        header["scf_retry"] = molecule.scf_retry
    if molecule.properties:
        header["properties"] = {
            name: np.asarray(value, dtype=np.float64).tolist()
            for name, value in molecule.properties.items()
        }
    offsets = ao_offsets(molecule.method.basis, molecule.atomic_numbers)
    arrays = {
        "atomic_numbers": molecule.atomic_numbers.astype(np.int64),
        "nao_per_atom": np.diff(offsets),
    }
    arrays["positions"] = molecule.positions.astype(np.float64)
    if molecule.forces is not None:
        arrays["forces"] = molecule.forces.astype(np.float64)
    for name in MATRICES:
        matrix = getattr(molecule, name)
        if matrix is not None:
            arrays |= {
                f"{name}_{part}": values for part, values in encode_matrix(matrix, offsets).items()
            }
    file = io.BytesIO()
    # Not compressed: a Hamiltonian's digits are noise to zlib, and views need plain bytes (npz.py).
    np.savez(file, allow_pickle=False, **arrays)
    # Sorted keys: equal molecules are equal bytes, whatever the Python that wrote them.
    return {"json": json.dumps(header, sort_keys=True, indent=1).encode(), "npz": file.getvalue()}


@dataclass(frozen=True)
class StoredSample:
    """A sample as its bytes hold it.

    Attributes:
        molecule: all but the matrices. offsets: first AO of every atom, [N+1].
        matrices: {"hamiltonian": arrays of `encode_matrix`, ...}, views on the bytes that were
            read. where: file and key, for messages.
    """

    molecule: Molecule
    offsets: np.ndarray
    matrices: dict[str, dict[str, np.ndarray]]
    where: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that the sample has."""
        own = labels_of(self.molecule)
        return (*(name for name in MATRICES if name in self.matrices), *own)

    def check_finite(self) -> None:
        """Raise ValueError naming the matrix that holds NaN or infinity."""
        for matrix, parts in self.matrices.items():
            for name, values in parts.items():
                check_finite(f"{self.where}: {matrix}_{name}", values)

    def dense(self) -> Molecule:
        """The molecule with its matrices, symmetric to the last bit.

        Raises:
            ValueError: a matrix holds NaN or infinity.
        """
        self.check_finite()
        dense: dict[str, Any] = {
            name: decode_matrix(parts, self.offsets) for name, parts in self.matrices.items()
        }
        return replace(self.molecule, **dense)


def parse(members: Mapping[str, Buffer], where: str) -> StoredSample:
    """Read the members of a sample without copying its matrices or computing checksums.

    Args:
        where: shard and key, for messages.
    Raises:
        ValueError: a member is damaged, or an array is missing or wrongly sized. Whether matrices
            are finite is seen when they are used.
    """
    try:
        header = json.loads(bytes(members["json"]))
        header["version"] = int(header["version"])
        arrays = npz.arrays(memoryview(members["npz"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: damaged sample ({error}); get the shard anew") from None
    if header["version"] != VERSION:
        raise ValueError(
            f"{where}: got format version {header['version']}, wanted {VERSION}; update helm_scale"
        )
    try:
        return _stored(header, arrays, where)
    except KeyError as error:
        raise ValueError(f"{where}: {error} is missing; get the shard anew") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}; get the shard anew") from None


def decode(members: Mapping[str, Buffer], where: str) -> Molecule:
    """Rebuild a molecule from its members.

    Raises:
        ValueError: as `parse`, or a matrix holds NaN or infinity.
    """
    return parse(members, where).dense()


def encode_matrix(matrix: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Take one triangle of a symmetric matrix [nao, nao] (Hartree) as flat arrays.

    Args:
        offsets: first AO of every atom, [N+1].
    Returns:
        onsite: float64, upper triangle of every atom's block, row-major, atom after atom.
        offsite: float32, block (i, j) row-major, pairs i < j row-major.
        remainder_index, remainder: places in offsite, and what float32 lost there, where |value| >
            0.5.
    """
    onsite, exact = flat_blocks(matrix, offsets)
    # Below 0.5 Hartree half a float32 step is at most 1.5e-8; larger elements keep what it takes.
    rounded = exact.astype(np.float32)
    index = np.flatnonzero(np.abs(exact) > FLOAT32_LIMIT)
    return {
        "onsite": onsite,
        "offsite": rounded,
        # int32 where it reaches: half the bytes.
        "remainder_index": index.astype(np.int64 if len(exact) > 2**31 else np.int32),
        "remainder": (exact[index] - rounded[index]).astype(np.float32),
    }


def flat_blocks(matrix: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (upper triangles of the atoms' blocks, blocks i < j), flat, row-major, float64."""
    atoms = len(offsets) - 1
    # The empty arrays in front keep a lone atom, which has no pair, from stopping concatenate.
    block = [slice(offsets[i], offsets[i + 1]) for i in range(atoms)]
    onsite = [matrix[b, b][np.triu_indices(b.stop - b.start)] for b in block]
    offsite = [
        matrix[block[i], block[j]].ravel() for i in range(atoms) for j in range(i + 1, atoms)
    ]
    return np.concatenate([np.zeros(0), *onsite]), np.concatenate([np.zeros(0), *offsite])


def decode_matrix(parts: Mapping[str, np.ndarray], offsets: np.ndarray) -> np.ndarray:
    """Rebuild the symmetric matrix [nao, nao], float64, from the arrays of `encode_matrix`.

    Raises:
        ValueError: an array has the wrong size.
    """
    check_parts(parts, offsets)
    # Added in float64: in float32 the remainder would be rounded away again.
    exact = parts["offsite"].astype(np.float64)
    exact[parts["remainder_index"]] += parts["remainder"]
    return _assemble(parts["onsite"], exact, offsets)


def check_finite(name: str, values: np.ndarray) -> None:
    """Raise ValueError naming the array if it holds NaN or infinity."""
    # Either survives the sum, which makes no copy as numpy.isfinite does.
    with np.errstate(over="ignore", invalid="ignore"):
        if not math.isfinite(values.sum()):
            raise ValueError(f"{name} holds NaN or infinity; get the shard anew")


def check_parts(parts: Mapping[str, np.ndarray], offsets: np.ndarray) -> None:
    """Raise ValueError unless the arrays of `encode_matrix` fit the AOs of the atoms."""
    sizes = offsets[1:] - offsets[:-1]
    count = int(sizes.sum() ** 2 - (sizes**2).sum()) // 2
    wanted = {
        "onsite": int((sizes * (sizes + 1) // 2).sum()),
        "offsite": count,
        "remainder_index": len(parts["remainder"]),
    }
    for name, size in wanted.items():
        if parts[name].shape != (size,):
            raise ValueError(f"{name}: got {parts[name].shape}, wanted ({size},)")
    index = parts["remainder_index"]
    if len(index) and not 0 <= index.min() <= index.max() < count:
        raise ValueError(f"remainder_index: points outside the {count} off-site elements")


def _assemble(onsite: np.ndarray, offsite: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Blocks -> dense matrix; every lower element is a copy of the upper one."""
    atoms = len(offsets) - 1
    block = [slice(offsets[i], offsets[i + 1]) for i in range(atoms)]
    matrix = np.zeros((offsets[-1], offsets[-1]))
    place = start = 0
    for i in range(atoms):
        size = int(offsets[i + 1] - offsets[i])
        row, column = np.triu_indices(size)
        values = onsite[place : place + len(row)]
        matrix[block[i], block[i]][row, column] = values
        matrix[block[i], block[i]][column, row] = values
        place += len(row)
        for j in range(i + 1, atoms):
            count = size * int(offsets[j + 1] - offsets[j])
            values = offsite[start : start + count].reshape(size, -1)
            matrix[block[i], block[j]], matrix[block[j], block[i]] = values, values.T
            start += count
    return matrix


def _stored(header: dict[str, Any], arrays: dict[str, np.ndarray], where: str) -> StoredSample:
    """Check sizes and values; errors do not name the sample yet."""
    # Small arrays are copied, so that they do not keep the memory of the whole sample alive.
    method, numbers = Method(**header["method"]), arrays["atomic_numbers"].copy()
    offsets = ao_offsets(method.basis, numbers)
    sizes = offsets[1:] - offsets[:-1]
    # A basis table that has changed since the sample was written shows here.
    if not np.array_equal(arrays["nao_per_atom"], sizes):
        raise ValueError(
            f"nao_per_atom: got {arrays['nao_per_atom'].tolist()},"
            f" wanted {sizes.tolist()} for {method.basis}"
        )
    labels = header["labels"]
    vectors = {
        name: arrays[name].copy()
        for name in ("positions", "forces")
        if name == "positions" or name in labels
    }
    for name, values in vectors.items():
        if values.shape != (len(numbers), 3):
            raise ValueError(f"{name}: got {values.shape}, wanted ({len(numbers)}, 3)")
        check_finite(name, values)
    matrices = {name: _parts(arrays, name) for name in MATRICES if name in labels}
    for parts in matrices.values():
        check_parts(parts, offsets)
    properties = {
        name: np.asarray(value, dtype=np.float64)
        for name, value in header.get("properties", {}).items()
    }
    molecule = Molecule(
        key=header["key"],
        atomic_numbers=numbers,
        charge=header["charge"],
        spin_multiplicity=header["spin_multiplicity"],
        energy=header["energy"],
        method=method,
        scf_retry=header.get("scf_retry"),
        positions=vectors["positions"],
        forces=vectors.get("forces"),
        properties=properties,
    )
    return StoredSample(molecule, offsets, matrices, where)


def _parts(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays of one matrix, under the names of `encode_matrix`."""
    return {
        part: arrays[f"{name}_{part}"]
        for part in ("onsite", "offsite", "remainder_index", "remainder")
    }


def _check_labels(molecule: Molecule) -> None:
    """Raise ValueError naming the molecule and the label that cannot be stored."""
    assert molecule.method is not None
    where, atoms = f"molecule '{molecule.key}'", len(molecule.atomic_numbers)
    nao = int(ao_offsets(molecule.method.basis, molecule.atomic_numbers)[-1])
    shapes = {
        "positions": (atoms, 3),
        "forces": (atoms, 3),
        "energy": (),
        **dict.fromkeys(MATRICES, (nao, nao)),
    }
    for name, value in molecule.properties.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{where}: {name} holds NaN or infinity; reject the molecule")
    for name, shape in shapes.items():
        values = getattr(molecule, name)
        if values is None:
            continue
        if np.shape(values) != shape:
            raise ValueError(
                f"{where}: {name} has shape {np.shape(values)},"
                f" wanted {shape} (basis {molecule.method.basis})"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{where}: {name} holds NaN or infinity; reject the molecule")
        difference = float(np.abs(values - values.T).max()) if name in MATRICES else 0.0
        if difference > SYMMETRY_LIMIT:
            raise ValueError(
                f"{where}: {name} is not symmetric (max |M-M^T| = {difference:.1e},"
                f" limit {SYMMETRY_LIMIT:.0e}); check AO order and triangle of its source"
            )
