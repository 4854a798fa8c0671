"""The physics of the model: it turns, permutes, is Hermitian, adds up and is smooth.

Inputs are asymmetric, with s, p, d and f shells, an ECP element and edges along both poles; weights
are perturbed so that nothing is zero by initialisation.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from helm_scale.basis import layout
from helm_scale.basis.assembly import assemble
from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.types import Molecule
from tests.rotations import ao_rotation, random_rotation
from tests.tolerances import MODEL

SMALL = partial(
    ModelConfig,
    channels=8,
    hidden_channels=8,
    edge_channels=8,
    num_layers=2,
    pair_layers=2,
    radial_functions=8,
)
NUMBERS = np.array([6, 1, 1, 53, 8, 6, 1])


def positions() -> np.ndarray:
    """Seven atoms; bonds 0-1 and 0-2 lie on +z and -z."""
    x = np.random.default_rng(0).normal(size=(7, 3)) * 1.6
    x[1], x[2] = x[0] + [0, 0, 1.1], x[0] - [0, 0, 1.2]
    return x


def molecule(numbers: np.ndarray, x: np.ndarray, charge: int = 0) -> Molecule:
    return Molecule("m", numbers, np.ascontiguousarray(x), charge=charge, spin_multiplicity=1)


def build(config: ModelConfig) -> Helm:
    torch.manual_seed(0)
    model = Helm(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model.set_reference(torch.randn(model.reference.shape, dtype=torch.float64), 0.7)
    return model


def hamiltonians(model: Helm, molecules: list[Molecule]) -> list[np.ndarray]:
    config = model.config
    batch = collate(molecules, config)
    with torch.no_grad():
        prediction = model(batch)
        onsite = prediction.onsite.double() + model.reference_onsite(batch)
    parts = (onsite, prediction.offsite)
    return [h.numpy() for h in assemble(batch, *parts, basis=config.basis, parity=config.parity)]


def relative(difference: np.ndarray, of: np.ndarray) -> float:
    return float(np.abs(difference).max() / np.abs(of).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "settings", [{}, {"mmax": 3}, {"parity": "full"}], ids=["plain", "mmax3", "full"]
)
def test_hamiltonian_turns_with_the_molecule(dtype: str, settings: dict) -> None:
    model = build(SMALL(dtype=dtype, **settings))
    rotation = random_rotation(3)
    x = positions()
    before, after = hamiltonians(
        model, [molecule(NUMBERS, x), molecule(NUMBERS, x @ rotation.numpy().T)]
    )
    turn = ao_rotation(rotation, "def2-tzvpd", NUMBERS)
    assert relative(after - turn @ before @ turn.T, before) < MODEL[getattr(torch, dtype)]
    assert (
        relative(after - before, before) > 1e-2
    )  # the comparison would notice a model that ignores directions


def test_hamiltonian_is_the_same_when_the_frame_of_an_edge_jumps() -> None:
    model = build(SMALL(dtype="float64"))
    numbers, x = np.array([8, 16]), np.array([[0.0, 0.0, 0.0], [1.3, 0.4, 0.0]])
    above, below = (
        hamiltonians(model, [molecule(numbers, x + [[0, 0, 0], [0, 0, z]])])[0]
        for z in (1e-11, -1e-11)
    )
    assert relative(above - below, above) < MODEL[torch.float64]


def test_hamiltonian_permutes_with_the_atoms() -> None:
    model = build(SMALL(dtype="float64"))
    order = np.random.default_rng(1).permutation(7)
    before, after = hamiltonians(
        model, [molecule(NUMBERS, positions()), molecule(NUMBERS[order], positions()[order])]
    )
    offsets = layout.ao_offsets("def2-tzvpd", NUMBERS)
    aos = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in order])
    assert relative(after - before[np.ix_(aos, aos)], before) < MODEL[torch.float64]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_hamiltonian_is_hermitian_to_the_last_bit(dtype: str) -> None:
    (matrix,) = hamiltonians(build(SMALL(dtype=dtype)), [molecule(NUMBERS, positions())])
    assert (matrix == matrix.T).all()
    assert np.count_nonzero(matrix) > 0.99 * matrix.size


def test_a_molecule_does_not_see_its_neighbours_in_the_batch() -> None:
    model = build(SMALL(dtype="float64"))
    x = positions()
    several = [
        molecule(NUMBERS, x),
        molecule(NUMBERS[:3], x[:3], charge=1),
        molecule(np.array([10]), np.zeros((1, 3))),
    ]
    for together, alone in zip(
        hamiltonians(model, several), [hamiltonians(model, [m])[0] for m in several], strict=True
    ):
        assert relative(together - alone, alone) < MODEL[torch.float64]


def test_charge_and_multiplicity_are_seen() -> None:
    model = build(SMALL(dtype="float64"))
    x, neutral = positions()[:3], molecule(NUMBERS[:3], positions()[:3])
    triplet = Molecule("t", NUMBERS[:3], x, charge=0, spin_multiplicity=3)
    cation = molecule(NUMBERS[:3], x, charge=1)
    plain, charged, spun = hamiltonians(model, [neutral, cation, triplet])
    assert relative(charged - plain, plain) > 1e-4 and relative(spun - plain, plain) > 1e-4


@pytest.mark.parametrize("cutoff", ["trunk_cutoff", "pair_cutoff"])
def test_an_atom_that_crosses_a_cutoff_changes_nothing_abruptly(cutoff: str) -> None:
    model = build(SMALL(dtype="float64", trunk_cutoff=4.0, pair_cutoff=5.0))
    distance = getattr(model.config, cutoff)
    numbers = np.array([8, 6, 1])
    x = np.array([[0.0, 0, 0], [1.2, 0.3, 0], [0, 0, 0]])
    matrices = []
    for shift in (-1e-4, 1e-4, -1e-2):
        x[2] = [0.3, 0.5, -((distance + shift) ** 1)]
        x[2] *= (distance + shift) / np.linalg.norm(x[2])
        matrices.append(hamiltonians(model, [molecule(numbers, x.copy())])[0])
    inside, outside, further = matrices
    assert (
        relative(inside - outside, inside) < 1e-4 * 2
    )  # the drift of a smooth function over 2e-4 Angstrom
    assert relative(further - outside, inside) < 2e-2


def test_far_fragments_have_no_common_blocks_and_are_as_alone() -> None:
    model = build(SMALL(dtype="float64", trunk_cutoff=4.0, pair_cutoff=5.0))
    x = positions()[:3]
    both = molecule(np.tile(NUMBERS[:3], 2), np.concatenate([x, x + [40.0, 0, 0]]))
    together, alone = hamiltonians(model, [both, molecule(NUMBERS[:3], x)])
    size = len(alone)
    assert relative(together[:size, :size] - alone, alone) < MODEL[torch.float64]
    assert not together[:size, size:].any()


def test_energy_is_invariant_and_size_consistent() -> None:
    torch.manual_seed(0)
    model = EnergyModel(SMALL(dtype="float64", trunk_cutoff=4.0))
    x, rotation = positions(), random_rotation(5).numpy()
    order = np.random.default_rng(2).permutation(7)
    far = molecule(np.tile(NUMBERS, 2), np.concatenate([x, x @ rotation.T + [60.0, 0, 0]]))
    molecules = [
        molecule(NUMBERS, x),
        molecule(NUMBERS, x @ rotation.T + 3.0),
        molecule(NUMBERS[order], x[order]),
        far,
    ]
    energy = model(collate(molecules, model.config)).detach()
    assert (energy[1:3] - energy[0]).abs().max() < 1e-10 * energy[0].abs()
    assert (energy[3] - 2 * energy[0]).abs() < 1e-10 * energy[0].abs()


def test_features_have_exact_gradients_along_the_poles() -> None:
    torch.manual_seed(0)
    model = EnergyModel(SMALL(dtype="float64", num_layers=1))
    batch = collate([molecule(NUMBERS[:4], positions()[:4])], model.config)
    x = batch.positions.clone().requires_grad_()

    def energy(x: torch.Tensor) -> torch.Tensor:
        return model(replace(batch, positions=x))

    assert torch.autograd.gradcheck(energy, (x,), atol=1e-6, rtol=1e-6)


def test_lmax_too_low_for_the_basis_is_refused() -> None:
    with pytest.raises(ValueError, match="irreps up to L = 6"):
        Helm(SMALL(lmax=4, mmax=4))


def test_every_parameter_takes_part_even_without_pairs() -> None:
    model = build(SMALL())
    prediction = model(collate([molecule(np.array([1]), np.zeros((1, 3)))], model.config))
    (prediction.onsite.sum() + prediction.offsite.sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
