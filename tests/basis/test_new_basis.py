"""A basis with g shells needs a table and nothing else: every part of the data flow takes it.

Follows the recipe of basis/registry.py for def2-QZVP (C: 57 orbitals, 9 of them g), and takes
PySCF's own matrices of CH2, in two orientations, through order, packing, rotation and assembly.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pyscf import scf
from torch import Tensor

from helm_scale.basis import layout, registry, shells
from helm_scale.basis.assembly import assemble
from helm_scale.basis.packing import pack
from helm_scale.config import GenerateConfig, ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.dft.molecule import build_mol, from_canonical, to_canonical
from helm_scale.dft.tables import write_table
from helm_scale.model.helm import Helm
from helm_scale.types import Molecule
from tests.basis.test_equivariance import packed_rotation
from tests.rotations import ao_rotation, random_rotation

BASIS = "def2-qzvp"
NUMBERS = np.array([6, 1, 1])
POSITIONS = np.array([[0.0, 0.0, 0.1], [0.86, 0.1, 0.7], [-0.79, 0.3, 0.6]])
ROTATION = random_rotation(11)
EXACT = 1e-10  # relative: PySCF's integrals in two orientations
NAMES = ("overlap", "core", "fock")


@pytest.fixture(scope="module", autouse=True)
def quadruple_zeta(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Known basis sets and def2-QZVP of hydrogen and carbon, as dft/tables.py writes it."""
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(registry.FOLDER, folder, dirs_exist_ok=True)
        patch.setattr(registry, "FOLDER", folder)
        write_table(BASIS, [1, 6], folder)
        yield folder


@pytest.fixture(scope="module")
def matrices() -> list[dict[str, np.ndarray]]:
    """S, core Hamiltonian and a Fock matrix with exact exchange, before and after the rotation.

    In the canonical order.
    """
    results = []
    for positions in (POSITIONS, POSITIONS @ ROTATION.numpy().T):
        solver = scf.RHF(build_mol(Molecule("ch2", NUMBERS, positions), BASIS))
        fock = solver.get_fock(dm=solver.get_init_guess(key="minao"))
        parts = zip(NAMES, (solver.get_ovlp(), solver.get_hcore(), fock), strict=True)
        results.append({name: to_canonical(part, BASIS, NUMBERS) for name, part in parts})
    return results


def symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2


def test_the_table_holds_all_57_functions_of_carbon() -> None:
    assert shells.nao(BASIS, 6) == 57 and shells.shell_counts(BASIS, 6) == (7, 4, 3, 2, 1)
    assert shells.slot_counts(BASIS) == (7, 4, 3, 2, 1) and shells.highest_degree(BASIS) == 4
    assert max(layout.head_multiplicities(BASIS, onsite=False)) == 8  # g with g


def test_settings_take_the_basis_and_name_those_they_know() -> None:
    assert ModelConfig(basis=BASIS).basis == GenerateConfig(basis=BASIS).basis == BASIS
    with pytest.raises(ValueError, match="wanted one of def2-qzvp, def2-svp, def2-tzvpd"):
        ModelConfig(basis="def2-qzvpp")


@pytest.mark.parametrize("name", NAMES)
def test_matrices_with_g_shells_turn_with_the_molecule(
    matrices: list[dict[str, np.ndarray]], name: str
) -> None:
    before, after = (part[name] for part in matrices)
    d = ao_rotation(ROTATION, BASIS, NUMBERS)
    expected = d @ before @ d.T
    assert np.abs(expected - before).max() > 0.1  # the rotation is not a trivial one
    assert np.abs(after - expected).max() < EXACT * np.abs(before).max()
    there_and_back = to_canonical(from_canonical(before, BASIS, NUMBERS), BASIS, NUMBERS)
    assert np.array_equal(there_and_back, before)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (1, 2)])
def test_packed_irreps_with_g_shells_turn_with_the_molecule(
    matrices: list[dict[str, np.ndarray]], first: int, second: int
) -> None:
    z = int(NUMBERS[first]), int(NUMBERS[second])
    kind = (
        layout.onsite_layout(BASIS, z[0], "full")
        if first == second
        else layout.offsite_layout(BASIS, *z)
    )
    starts = layout.ao_offsets(BASIS, NUMBERS)
    rows, columns = (slice(starts[atom], starts[atom + 1]) for atom in (first, second))
    before, after = (
        pack(torch.tensor(symmetric(part["fock"])[rows, columns])[None], kind)[0]
        for part in matrices
    )
    turned = packed_rotation(kind, ROTATION) @ before
    assert (after - turned).abs().max() < EXACT * before.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_labels_with_g_shells_assemble_to_the_matrices_they_came_from(
    matrices: list[dict[str, np.ndarray]], name: str
) -> None:
    matrix = symmetric(matrices[0][name])
    molecule = Molecule("ch2", NUMBERS, POSITIONS, hamiltonian=matrix)
    batch = collate([molecule], ModelConfig(basis=BASIS, parity="full"))
    targets = (batch.onsite_target, batch.offsite_target)
    (rebuilt,) = assemble(batch, *targets, basis=BASIS, parity="full")
    assert np.abs(rebuilt.numpy() - matrix).max() < EXACT * np.abs(matrix).max()


def predicted(positions: np.ndarray, model: Helm) -> Tensor:
    batch = collate([Molecule("ch2", NUMBERS, positions)], model.config)
    with torch.no_grad():
        prediction = model(batch)
    parts = (prediction.onsite, prediction.offsite)
    return assemble(batch, *parts, basis=BASIS, parity=model.config.parity)[0]


def test_a_model_of_the_basis_predicts_a_hamiltonian_that_turns_with_the_molecule() -> None:
    torch.manual_seed(0)
    sizes = dict(channels=4, hidden_channels=4, edge_channels=4, num_layers=1, radial_functions=8)
    model = Helm(ModelConfig(basis=BASIS, lmax=8, mmax=1, dtype="float64", **sizes))
    before = predicted(POSITIONS, model)
    after = predicted(POSITIONS @ ROTATION.numpy().T, model)
    d = torch.from_numpy(ao_rotation(ROTATION, BASIS, NUMBERS))
    assert before.shape == (57 + 2 * 30, 57 + 2 * 30)
    assert before[48:57, 48:57].abs().max() > 0  # the g shell of carbon
    assert (after - d @ before @ d.T).abs().max() < EXACT * before.abs().max()


def test_a_model_too_low_for_the_basis_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.lmax: got 6, .* irreps up to L = 8"):
        Helm(ModelConfig(basis=BASIS, lmax=6, mmax=1))
