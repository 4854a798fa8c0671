"""A file that is not what it is declared to be is refused, with check, sample and cause."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helm_scale.config import ImportConfig
from helm_scale.dft.molecule import WITHOUT_VV10
from helm_scale.importers import proofs, registry, run
from tests.importers import layouts
from tests.importers.conftest import Labels

SVP, TZVPD = "def2-svp", "def2-tzvpd"
WB97X_D = "hyb_gga_xc_wb97x_d"


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """The message that ends an import; nothing may have been written."""

    def run_it(dataset: str, source: Path, **more: object) -> str:
        out = tmp_path / "out"
        with pytest.raises(ValueError) as error:
            run.import_dataset(
                ImportConfig(dataset=dataset, source=str(source), out=str(out), processes=1, **more)
            )
        assert not out.exists() and "\n" not in str(error.value)
        return str(error.value)

    return run_it


def test_positions_in_bohr_where_angstrom_is_declared(
    labels: Labels, refused: Callable, tmp_path: Path
) -> None:
    file = layouts.write_md17(
        tmp_path / "m.db", [labels("water", "pbe", SVP)], unit=1 / 0.52917721092
    )
    said = refused("md17", file)
    assert "m.db, sample 1 (md17-H2O-1): proof 'overlap': max |S - S_PySCF| = " in said
    assert said.endswith("limit 1e-05; every proof holds if positions are in bohr")
    file = layouts.write_qh9_stable(
        tmp_path / "q.db", [labels("water", "b3lyp5", SVP)], unit=1 / 0.52917721092
    )
    assert refused("qh9-stable", file).endswith(
        "; every proof holds if positions are in bohr"
    )  # no overlap in this file


def test_hamiltonians_in_electronvolt(labels: Labels, refused: Callable, tmp_path: Path) -> None:
    file = layouts.write_nabla_dft(
        tmp_path / "n.db", [labels("fluoride", WB97X_D, SVP)], factor=27.211386245988
    )
    assert "proof 'levels': " in (said := refused("nabla-dft", file)) and said.endswith(
        "every proof holds if H is in eV"
    )


def test_the_ao_order_of_another_program(labels: Labels, refused: Callable, tmp_path: Path) -> None:
    file = layouts.write_md17(tmp_path / "m.db", [labels("water", "pbe", SVP)], program="pyscf")
    said = refused("md17", file)
    assert "proof 'overlap'" in said and said.endswith(
        "every proof holds if the AO order is that of pyscf, not orca"
    )


def test_b3lyp_where_b3lyp5_is_declared(labels: Labels, refused: Callable, tmp_path: Path) -> None:
    file = layouts.write_qh9_stable(tmp_path / "q.db", [labels("water", "b3lyp", SVP)])
    said = refused("qh9-stable", file)
    assert (
        "proof 'consistency': mean |F[P(H)] - H| = " in said
        and "uEh with b3lyp5, limit 5.0 uEh" in said
    )
    assert said.endswith("every proof holds if the functional is b3lyp, not b3lyp5: --xc 'b3lyp'")


def test_a_release_with_and_without_the_diffuse_shell_defect(
    labels: Labels, refused: Callable, tmp_path: Path
) -> None:
    molecules = [labels("fluoride", "pbe", TZVPD)]
    sound = layouts.write_omol(tmp_path / "sound.h5", molecules, defect=False)
    scrambled = layouts.write_omol(tmp_path / "scrambled.h5", molecules)
    assert (
        "every proof holds if the file is without the diffuse-shell defect: --repair false"
        in refused("omol-csh-58k", sound, xc="pbe")
    )
    assert "every proof holds if the file has the diffuse-shell defect: --repair true" in refused(
        "omol-csh-58k", scrambled, xc="pbe", repair=False
    )
    for file, repair in ((sound, False), (scrambled, True)):
        config = ImportConfig(dataset="omol-csh-58k", source=str(file), repair=repair)
        source = registry.find("omol-csh-58k").open(file, config)
        method = run.declared_method(source.method, config.model_copy(update={"xc": "pbe"}))
        assert proofs.prove(
            source.read(source.addresses()[0]), method, proofs.ProofLimits(1e-7, 20), "here"
        )


def test_the_defect_is_seen_without_a_fock_matrix(
    labels: Labels, refused: Callable, tmp_path: Path
) -> None:
    file = layouts.write_omol(tmp_path / "sound.h5", [labels("water", "pbe", TZVPD)], defect=False)
    said = refused("omol-csh-58k", file, xc="pbe", proof_atoms=0)
    assert "proof 'levels'" in said and "--repair false" in said


def test_elements_whose_shells_are_sorted_have_no_defect(labels: Labels, tmp_path: Path) -> None:
    one, other = (
        layouts.write_omol(tmp_path / f"{defect}.h5", [labels("hydride", "pbe", TZVPD)], defect)
        for defect in (True, False)
    )
    readings = []
    for file in (one, other):
        source = registry.find("omol-csh-58k").open(file, ImportConfig())
        readings.append(source.read(source.addresses()[0]))
    assert np.array_equal(readings[0].matrices["hamiltonian"], readings[1].matrices["hamiltonian"])


def test_a_state_below_every_core(labels: Labels, refused: Callable, tmp_path: Path) -> None:
    original = labels("water", "pbe", SVP)
    assert original.hamiltonian is not None
    ghost = original.hamiltonian - 400.0 * np.diag(np.arange(24) == 23)
    folder = layouts.write_npz(tmp_path / "npz", [replace(original, hamiltonian=ghost)])
    said = refused("npz", folder, xc="pbe", basis=SVP, licence="MIT", proof_atoms=0)
    assert (
        "proof 'levels': lowest eigenvalue -" in said and "Eh, wanted none below -23.4 Eh" in said
    )


def test_a_wrong_charge(labels: Labels, refused: Callable, tmp_path: Path) -> None:
    folder = layouts.write_npz(tmp_path / "npz", [labels("water", "pbe", SVP)], charge=2)
    said = refused("npz", folder, xc="pbe", basis=SVP, licence="MIT")
    assert "proof 'consistency'" in said and said.endswith(
        "every proof holds if the charge is +0, not +2"
    )


@pytest.mark.slow
def test_vv10_that_never_entered_the_matrix(
    labels: Labels, refused: Callable, tmp_path: Path
) -> None:
    original = labels("fluoride", "wb97m-v" + WITHOUT_VV10, SVP)
    folder = layouts.write_npz(tmp_path / "npz", [original])
    said = refused("npz", folder, xc="wb97m-v", basis=SVP, grid_level=3, licence="MIT")
    assert "with wb97m-v, limit 20.0 uEh" in said and said.endswith(
        "if the functional is wb97m-v without vv10, not wb97m-v: --xc 'wb97m-v without vv10'"
    )


def test_an_asymmetric_matrix_and_one_of_another_basis(
    labels: Labels, refused: Callable, tmp_path: Path
) -> None:
    folder = layouts.write_npz(tmp_path / "npz", [labels("fluoride", "pbe", SVP)])
    with np.load(folder / "fluoride.npz") as stored:
        arrays = dict(stored)
    for change, message in (
        ({"hamiltonian": np.triu(arrays["hamiltonian"])}, "hamiltonian is not symmetric (max"),
        ({"hamiltonian": arrays["hamiltonian"][:-1, :-1]}, "shape (18, 18), wanted (19, 19); the"),
        ({"hamiltonian": np.full((19, 19), np.nan)}, "hamiltonian holds NaN or infinity"),
        ({"hamiltonien": arrays["hamiltonian"]}, "unknown key 'hamiltonien'; known: "),
        ({"spin_multiplicity": 3}, "molecule 'fluoride': multiplicity 3; only closed shells"),
    ):  # fmt: skip
        np.savez(folder / "fluoride.npz", **{**arrays, **change})
        assert message in refused("npz", folder, xc="pbe", basis=SVP, licence="MIT")


@pytest.mark.parametrize("symbol_number", [5, 6, 8, 9, 17, 26, 35])
def test_levels_grow_with_the_nuclear_charge(symbol_number: int) -> None:
    measured = {5: -6.62, 6: -10.02, 8: -18.88, 9: -24.34, 17: -100.67, 26: None, 35: -480.97}[
        symbol_number
    ]  # PBE/def2-SVP, PySCF
    assert measured is None or abs(proofs.level(symbol_number) / measured - 1) < 0.06
    assert proofs.level(symbol_number) < proofs.level(symbol_number - 1)
