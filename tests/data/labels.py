"""Labelled molecules for the tests of data: small and random, which say nothing of chemistry."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from helm_scale.basis.layout import ao_offsets
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardWriter
from helm_scale.types import Method, Molecule

SVP = Method(
    xc="pbe",
    basis="def2-svp",
    ecp="def2",
    grid_level=1,
    auxbasis=None,
    conv_tol=1e-9,
    baseline="minao",
    program="PySCF 2.14.0",
)
TZVPD = replace(SVP, basis="def2-tzvpd", grid_level=0, auxbasis="def2-universal-jfit")


def random_symmetric(size: int, seed: int) -> np.ndarray:
    """Symmetric matrix with elements of size one and a diagonal of hundreds."""
    raw = np.random.default_rng(seed).normal(size=(size, size))
    return raw + raw.T + np.diag(np.linspace(-490.0, 1.0, size))


def random_molecule(key: str, seed: int) -> Molecule:
    """Asymmetric HOF in def2-SVP with random labels of every kind but the overlap."""
    numbers = np.array([9, 8, 1])
    positions = np.array([[0.0, 0.1, 0.0], [1.4, 0.0, 0.2], [1.7, 0.9, 0.1]]) + 0.01 * seed
    size = int(ao_offsets(SVP.basis, numbers)[-1])
    return Molecule(
        key=key,
        atomic_numbers=numbers,
        positions=positions,
        charge=seed % 3 - 1,
        hamiltonian=random_symmetric(size, seed),
        baseline_hamiltonian=random_symmetric(size, 1000 + seed),
        energy=-175.0 - seed,
        forces=np.random.default_rng(seed).normal(size=(3, 3)),
        method=SVP,
    )


def write_dataset(folder: Path, molecules: int = 5, per_shard: int = 2) -> Manifest:
    """A dataset of random molecules; the last is the test split."""
    writer = ShardWriter(
        folder, SVP, licence="CC0-1.0", source="random numbers", molecules_per_shard=per_shard
    )
    for number in range(molecules):
        writer.write(
            random_molecule(f"hof-{number}", number), "test" if number == molecules - 1 else "train"
        )
    return writer.close()


def same(first: Molecule, second: Molecule, tolerance: float = 0.0) -> bool:
    """Whether two molecules agree, matrices to a tolerance (Hartree)."""
    plain = all(
        getattr(first, name) == getattr(second, name)
        for name in ("key", "charge", "spin_multiplicity", "energy", "method")
    )
    exact = all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("atomic_numbers", "positions", "forces")
    )
    pairs = (
        (first.hamiltonian, second.hamiltonian),
        (first.baseline_hamiltonian, second.baseline_hamiltonian),
    )
    return (
        plain
        and exact
        and all(
            a is not None and b is not None and np.abs(a - b).max() <= tolerance for a, b in pairs
        )
    )
