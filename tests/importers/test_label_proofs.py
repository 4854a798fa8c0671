"""Energies and forces beside a Hamiltonian are those of its density, in the units of the package.

Public labels come in eV, as formation energies or as gradients; all of these once were imported.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helm_scale.config import ImportConfig
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import WITHOUT_VV10
from helm_scale.importers import proofs, run
from helm_scale.importers.proofs import ProofLimits, first_failure, prove
from helm_scale.importers.run import ProofCounts
from helm_scale.importers.source import SourceSample, listed_shells
from helm_scale.types import Molecule
from helm_scale.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV
from tests.importers import layouts
from tests.importers.conftest import PLAIN, Labels

SVP = "def2-svp"


def changed(original: Molecule, **fields: Any) -> Molecule:
    """The molecule with other labels; a function is applied to what is there."""
    return replace(
        original,
        **{
            name: value(getattr(original, name)) if callable(value) else value
            for name, value in fields.items()
        },
    )


def imported(molecule: Molecule, tmp_path: Path, **more: Any) -> ProofCounts:
    folder = layouts.write_npz(tmp_path / "npz", [molecule], forces=molecule.forces)
    given = {"xc": "pbe", "basis": SVP, "licence": "MIT", "processes": 1, **more}
    config = ImportConfig(dataset="npz", source=str(folder), out=str(tmp_path / "out"), **given)
    return run.import_dataset(config)[1]


def sample_of(molecule: Molecule) -> SourceSample:
    assert molecule.hamiltonian is not None
    return SourceSample(
        molecule=replace(molecule, hamiltonian=None, overlap=None, method=None),
        order="canonical",
        shells=listed_shells("pyscf", SVP, molecule.atomic_numbers, "here"),
        matrices={"hamiltonian": molecule.hamiltonian},
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"energy": lambda e: HARTREE_IN_EV * e},
            r"m0.npz \(water\): proof 'energy': got -207.\.[0-9]+ Eh, wanted E\[P\(H\)\] = -76\."
            r".*; every proof holds if energies are in eV$",
        ),
        ({"energy": lambda e: 627.509474 * e}, "every proof holds if energies are in kcal/mol$"),
        ({"energy": lambda e: 2625.49964 * e}, "every proof holds if energies are in kJ/mol$"),
        ({"energy": -0.35}, "proof 'energy': got -0.350000 .*; no unit fits: the label is of"),
        ({"energy": lambda e: -e}, "proof 'energy': got 76.* no unit fits"),
        ({"energy": lambda e: e - 0.02}, "proof 'energy': .* no unit fits"),
        ({"energy": lambda e: e + 0.002}, "proof 'energy': .* no unit fits"),
        (
            {"forces": lambda f: -f},
            r"proof 'forces': max \|F \+ dE/dR\| = 3.* Eh/Angstrom, limit 2e-03, largest force"
            r" .*; every proof holds if forces are in Hartree/Angstrom and are gradients",
        ),
        (
            {"forces": lambda f: f * BOHR_IN_ANGSTROM},
            "every proof holds if forces are in Hartree/bohr$",
        ),
        (
            {"forces": lambda f: f * HARTREE_IN_EV},
            "every proof holds if forces are in eV/Angstrom$",
        ),
        (
            {"forces": lambda f: -f * 627.509474 * BOHR_IN_ANGSTROM},
            "forces are in kcal/mol/bohr and are gradients",
        ),
        ({"forces": lambda f: f[[0, 2, 1]]}, "proof 'forces': .*no unit fits"),
    ],
)
def test_labels_in_another_unit_or_sign_are_refused_with_what_fits(
    fields: dict[str, Any], message: str, labels: Labels
) -> None:
    sample = sample_of(changed(labels("water", "pbe", SVP), **fields))
    with pytest.raises(ValueError, match=message):
        prove(sample, PLAIN, ProofLimits(1e-6, 20, gradient=True), "m0.npz")


def test_an_import_stops_before_it_writes(labels: Labels, tmp_path: Path) -> None:
    molecule = changed(labels("water", "pbe", SVP), forces=lambda f: -f)
    with pytest.raises(ValueError, match=r"water.npz \(water\): proof 'forces': .*gradients"):
        imported(molecule, tmp_path)
    assert not (tmp_path / "out").exists()


def test_true_labels_pass_with_a_correction_for_dispersion(labels: Labels, tmp_path: Path) -> None:
    molecule = changed(labels("water", "pbe", SVP), energy=lambda e: e - 0.01)
    assert imported(molecule, tmp_path, proof_share=0.0) == ProofCounts(1, 1)


@pytest.mark.parametrize(("factor", "unit"), [(HARTREE_IN_EV, "eV"), (627.509474, "kcal/mol")])
def test_molecules_without_a_fock_matrix_are_held_against_free_atoms(
    factor: float, unit: str, labels: Labels
) -> None:
    sample = sample_of(changed(labels("water", "pbe", SVP), energy=lambda e: factor * e))
    with pytest.raises(ValueError, match=f"no total energy, .* if energies are in {unit}$"):
        prove(sample, PLAIN, ProofLimits(1e-6, 0), "m0.npz")


@pytest.mark.slow
def test_energies_may_contain_vv10_that_the_matrices_lack(labels: Labels) -> None:
    bare = labels("fluoride", "wb97m-v" + WITHOUT_VV10, SVP)
    assert bare.method is not None and bare.energy is not None
    functional = EnergyFunctional(bare, replace(bare.method, xc="wb97m-v"))
    _, density, _ = proofs._solve(bare, bare.method, overlap(bare, SVP))
    whole, _ = functional.energy_and_fock(density)
    assert whole - bare.energy > 5e-3 * len(bare.atomic_numbers)
    for energy in (bare.energy, whole):
        sample = sample_of(replace(bare, energy=energy))
        assert first_failure(sample, bare.method, ProofLimits(1e-6, 20)) is None
