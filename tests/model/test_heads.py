"""Properties of molecules turn with them, and depend on neither place nor order of the atoms.

For every head of the table under every readout, in float64, with weights that are not zero.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from helm_scale.config import HeadConfig, ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.model.heads import HEADS
from helm_scale.model.heads.dipole import centre_of_nuclear_charge, dipole_moment
from helm_scale.model.heads.readouts import READOUTS
from helm_scale.model.properties import PropertyModel
from helm_scale.types import Molecule
from tests.rotations import random_rotation
from tests.tolerances import MODEL

SMALL = partial(
    ModelConfig,
    basis="def2-svp",
    lmax=4,
    mmax=4,
    channels=8,
    hidden_channels=8,
    edge_channels=8,
    num_layers=2,
    radial_functions=8,
    trunk_cutoff=4.0,
    dtype="float64",
)
NUMBERS = np.array([6, 1, 35, 8, 1, 7])
EVERY = [(name, kind) for name in HEADS for kind in READOUTS]


def positions() -> np.ndarray:
    """Six atoms without symmetry; the bond 0-1 lies on +z."""
    x = np.random.default_rng(4).normal(size=(6, 3)) * 1.6
    x[1] = x[0] + [0, 0, 1.1]
    return x


def build(name: str, kind: str) -> PropertyModel:
    torch.manual_seed(0)
    model = PropertyModel(SMALL(), HEADS[name], HeadConfig(kind=kind))  # type: ignore[arg-type]
    model.reference.copy_(torch.linspace(-0.5, 0.3, len(model.reference)))
    return model.requires_grad_(False)


def predict(
    model: PropertyModel, *geometries: tuple[np.ndarray, np.ndarray], charge: int
) -> Tensor:
    molecules = [Molecule(str(i), z, x, charge=charge) for i, (z, x) in enumerate(geometries)]
    return model(collate(molecules, model.config))


@pytest.mark.parametrize("charge", [0, 1])
@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_a_property_turns_with_the_molecule_wherever_it_lies(
    name: str, kind: str, charge: int
) -> None:
    x, rotation = positions(), random_rotation(1)
    order = np.random.default_rng(2).permutation(len(x))
    geometries = [(NUMBERS, x), (NUMBERS, x @ rotation.numpy().T + 5.0), (NUMBERS[order], x[order])]
    plain, turned, permuted = predict(build(name, kind), *geometries, charge=charge)
    limit = MODEL[torch.float64] * plain.abs().max()
    assert plain.abs().max() > 1e-3
    assert (permuted - plain).abs().max() < limit
    wanted = plain if plain.ndim == 0 else rotation @ plain
    assert (turned - wanted).abs().max() < limit


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_properties_of_neutral_molecules_far_apart_add_up(name: str, kind: str) -> None:
    x, model = positions(), build(name, kind)
    first, second = (NUMBERS, x), (NUMBERS[:4], x[:4] @ random_rotation(3).numpy().T + [40.0, 0, 0])
    both = tuple(np.concatenate(parts) for parts in zip(first, second, strict=True))
    one, other, together = predict(model, first, second, both, charge=0)
    assert (together - one - other).abs().max() < MODEL[torch.float64] * one.abs().max()
    assert other.abs().max() > 1e-3


@pytest.mark.parametrize("name", HEADS)
def test_a_property_is_linear_in_the_irreps_of_the_atoms(name: str) -> None:
    head, cutoff = HEADS[name], SMALL().trunk_cutoff
    batch = collate([Molecule("m", NUMBERS, positions(), charge=1)], SMALL())
    generator = torch.Generator().manual_seed(0)
    first, second = (
        {
            degree: torch.randn(6, 2 * degree + 1, n, generator=generator, dtype=torch.float64)
            for degree, n in head.irreps.items()
        }
        for _ in range(2)
    )
    mixed = {degree: 2 * x - 3 * second[degree] for degree, x in first.items()}
    values = [head.combine(irreps, batch, cutoff) for irreps in (first, second, mixed)]
    assert values[0].shape == (1, *head.quantity.shape)
    assert (values[2] - 2 * values[0] + 3 * values[1]).abs().max() < 1e-12


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_a_property_is_smooth_where_atoms_pass_the_cutoff(name: str, kind: str) -> None:
    model, x = build(name, kind), positions()[:3]
    away = np.array([0.6, 0.0, 0.8])
    x[2] = x[0] + 3.9 * away  # the third atom leaves the range of the first
    steps = [x + s * 1e-4 * np.array([[0], [0], [1]]) * away for s in range(2000)]
    values = predict(model, *((NUMBERS[:3], moved) for moved in steps[990:1010]), charge=0)
    jumps = values.diff(dim=0).abs().flatten(1) if values.ndim > 1 else values.diff().abs()[:, None]
    assert jumps.max() < 1e-3 * values.abs().max()


def test_charges_times_positions_and_vectors_make_the_dipole() -> None:
    """A charge that flows along one edge, an excess charge on one atom, a vector on another."""
    x = np.array([[0.0, 0, 0], [0, 0, 1.0], [2.0, 0, 0]])
    batch = collate([Molecule("m", np.array([8, 1, 6]), x, charge=-1)], SMALL())
    centre = torch.tensor([2.0 * 6, 0, 1.0 * 1]) / 15
    assert torch.allclose(centre_of_nuclear_charge(batch)[0], centre.double())
    irreps = {0: torch.zeros(3, 1, 2).double(), 1: torch.zeros(3, 3, 1).double()}
    irreps[1][0] = torch.tensor([[2.0], [3.0], [1.0]])  # m = -1, 0, 1: y, z, x
    assert dipole_moment(irreps, batch, 4.0)[0].tolist() == [1.0, 2.0, 3.0]
    irreps[1][0], irreps[0][2, 0, 1] = 0.0, 1.0
    wanted = -(torch.tensor([2.0, 0, 0]).double() - centre)
    assert torch.allclose(dipole_moment(irreps, batch, 4.0)[0], wanted)
    irreps[0][2, 0, 1], irreps[0][1, 0, 0] = 0.0, 1.0
    moment = dipole_moment(irreps, batch, 1e6)[0]  # so wide that the envelope is 1
    assert torch.allclose(moment, torch.tensor([-2.0, 0, 2.0]).double(), atol=1e-9)


def test_a_degree_above_lmax_is_refused() -> None:
    config = SMALL(lmax=1, mmax=1)
    with pytest.raises(
        ValueError, match=r"model.lmax: got 1, but the head reads irreps up to l = 2"
    ):
        READOUTS["linear"](config, HeadConfig(), {0: 1, 2: 1})
