"""A stretched bond moves only what lies behind it; PySCF's levels are those of its SCF."""

from dataclasses import replace

import numpy as np
import pytest

from helm_scale.dft.molecule import build_mol, kohn_sham
from helm_scale.evaluation import stretch
from helm_scale.evaluation.geometry import distances
from helm_scale.types import Molecule
from tests.evaluation.labels import SVP

LABELLED = tuple[Molecule, np.ndarray]


def test_only_the_atoms_behind_the_bond_move_and_they_move_along_it(ethanol: LABELLED) -> None:
    molecule = ethanol[0]
    assert stretch.longest_bond(molecule) == (0, 1)  # C-C
    longer = stretch.stretched(molecule, (1, 2), 1.4)  # C-O: O and its hydrogen
    assert longer.hamiltonian is None and longer.energy is None
    before, after = distances(molecule), distances(longer)
    assert after[1, 2] == pytest.approx(1.4 * before[1, 2])
    behind = np.isin(np.arange(9), (2, 3))
    same = behind[:, None] == behind
    assert np.abs(after - before)[same].max() < 1e-12
    moved = longer.positions - molecule.positions
    assert np.abs(moved[~behind]).max() == 0 and np.ptp(moved[behind], axis=0).max() < 1e-15
    assert stretch.title(molecule, (1, 2)) == "ethanol, bond C1-O2"


@pytest.mark.parametrize(
    ("bond", "message"),
    [
        ((0, 9), r"bond: got \[0, 9\], wanted two atoms from 0 to 8"),
        ((0, 2), "atoms 0 and 2 are not bonded or in a ring"),
    ],
)
def test_what_is_no_bond_is_named(bond: tuple[int, int], message: str, ethanol: LABELLED) -> None:
    with pytest.raises(ValueError, match=message):
        stretch.stretched(ethanol[0], bond, 1.1)


def test_bonds_of_rings_are_not_stretched() -> None:
    angle = np.arange(3) * 2 * np.pi / 3
    ring = 0.87 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    carbons = Molecule("ring", np.array([6, 6, 6, 1]), np.concatenate([ring, [[1.96, 0.0, 0.0]]]))
    assert stretch.longest_bond(carbons) == (0, 3)
    assert (
        stretch.longest_bond(
            replace(carbons, atomic_numbers=carbons.atomic_numbers[:3], positions=ring)
        )
        is None
    )
    with pytest.raises(ValueError, match="in a ring"):
        stretch.stretched(carbons, (0, 1), 1.2)


def test_levels_are_those_of_the_scf_and_of_the_prediction(water: LABELLED) -> None:
    molecule = water[0]
    longer = stretch.stretched(molecule, (0, 1), 1.3)
    solver = kohn_sham(build_mol(longer, SVP.basis), SVP)
    solver.kernel()
    job = stretch.StretchJob(
        molecule=longer,
        residual=np.zeros((24, 24)),
        method=replace(SVP, conv_tol=1e-10),
        baseline="minao",
        overlap_threshold=None,
    )
    found = stretch.label_point(job)
    assert not isinstance(found, str)
    reference, predicted = found
    assert reference.energy == pytest.approx(solver.e_tot, abs=1e-8)
    assert reference.homo == pytest.approx(solver.mo_energy[4], abs=1e-6)
    assert reference.lumo == pytest.approx(solver.mo_energy[5], abs=1e-6)
    assert predicted.energy > reference.energy + 1e-3  # minao H0 alone
    text = stretch.table([stretch.StretchPoint(1.0, 1.0, reference, predicted)], ["1.5: because"])
    assert (
        "HOMO / eV, PySCF" in text
        and text.endswith("1.5: because\n")
        and f"{solver.mo_energy[4] * 27.211386:.3f}" in text
    )
