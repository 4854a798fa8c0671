"""HamiltonianModel.initial_guess: a density for somebody's own PySCF molecule, or why not."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from pyscf import dft, gto

import helm_scale
from helm_scale.config import ModelConfig
from helm_scale.model.helm import Helm
from helm_scale.model.weights import save_weights
from tests.evaluation.labels import TZVPD

ATOMS = "I 0.1 0 -0.2; H 0.9 1.1 0.5"
BASIS = {"basis": "def2-tzvpd", "ecp": {"I": "def2-tzvpd"}, "verbose": 0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose output is tiny, so that it predicts H0."""
    config = ModelConfig(
        mmax=1,
        channels=4,
        hidden_channels=4,
        edge_channels=8,
        num_layers=1,
        radial_functions=8,
        baseline="minao",
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = Helm(config)
    model.set_reference(torch.zeros_like(model.reference), 1e-9)
    save_weights(model.state_dict(), folder / "model.safetensors", {})
    (folder / "model.json").write_text(
        json.dumps({"model": config.model_dump(mode="json"), "method": asdict(TZVPD)})
    )
    return folder


def test_the_guess_is_the_density_of_the_predicted_hamiltonian_in_the_users_order(
    source: Path,
) -> None:
    mol = gto.M(atom=ATOMS, **BASIS)
    solver = dft.RKS(mol, xc="pbe")
    solver.grids.level = 1
    found = helm_scale.load(source, projection="off").initial_guess(mol)
    fock = solver.get_fock(dm=solver.get_init_guess(key="minao"))  # what this model predicts
    energies, coefficients = solver.eig(fock, solver.get_ovlp())
    expected = solver.make_rdm1(coefficients, solver.get_occ(energies, coefficients))
    assert np.abs(found - expected).max() < 1e-6
    assert np.trace(found @ solver.get_ovlp()) == pytest.approx(26.0, abs=1e-8)


def test_a_guess_that_is_worse_than_minao_is_replaced_with_a_warning(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, mol = helm_scale.load(source, projection="off"), gto.M(atom=ATOMS, **BASIS)
    torch.manual_seed(1)
    model.network.set_reference(torch.randn_like(model.network.reference), 1e-9)  # untrained
    minao = dft.RKS(mol, xc="pbe").get_init_guess(key="minao")
    np.testing.assert_allclose(model.initial_guess(mol), minao, atol=1e-10)
    (record,) = [r for r in caplog.records if r.name.endswith("guess")]
    assert "the start is minao's: the energy of the predicted density is" in record.message
    assert np.abs(model.initial_guess(mol, check=False) - minao).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"basis": "def2-svp"},
            r"got another basis \(\d+ orbitals\),"
            r" wanted basis='def2-tzvpd', spherical \(68 orbitals\)",
        ),
        ({"cart": True}, r"got another basis"),
        (
            {"ecp": {}},
            r"got 54 electrons outside ECPs, wanted 26; give ecp='def2-tzvpd' for Z > 36",
        ),
        ({"charge": 1, "spin": 1}, r"wanted an even number of electrons and multiplicity 1"),
        ({"atom": "Fe 0 0 0; O 0 0 1.6", "ecp": {}}, r"element Z = 26 is not among the 58"),
    ],
)
def test_a_molecule_that_does_not_fit_is_refused_with_the_reason(
    changes: dict, message: str, source: Path
) -> None:
    mol = gto.M(**({"atom": ATOMS} | BASIS | changes))
    with pytest.raises(ValueError, match=message):
        helm_scale.load(source).initial_guess(mol)
