"""The model gives the numbers of the naive reference, which shares nothing with it but weights."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from helm_scale.basis.assembly import assemble
from helm_scale.config import HeadConfig, ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.types import Molecule
from tests.model import naive_reference
from tests.tolerances import MODEL

# Every width differs from the others, and each cutoff leaves out an edge of MOLECULES.
SMALL = partial(
    ModelConfig, dtype="float64", channels=4, hidden_channels=6, edge_channels=5, mmax=3,
    radial_functions=7, num_layers=2, pair_layers=2, trunk_cutoff=2.7, pair_cutoff=3.1,
)  # fmt: skip
SETTINGS = {
    "published": {},
    "one-pair-layer-narrow": {"mmax": 6, "pair_layers": 1, "pair_width": 1},
    "two-stages": {
        "parity": "full",
        "pair_inputs": "each",
        "tensor_product_stage": True,
        "stage_cutoff": 2.5,
    },
}
MOLECULES = [  # two carbons, bonds along +z and -z and across z, a heavy element, charge and spin
    Molecule(
        "a", np.array([6, 53, 1, 8, 6]), charge=1, spin_multiplicity=2,
        positions=np.array([[0, 0, 0], [0, 0, 2.1], [0, 0, -1.1], [1.4, -0.3, 0], [2.2, 0.9, 0.6]]),
    ),
    Molecule(
        "b", np.array([8, 1, 1]), charge=-2, spin_multiplicity=3,
        positions=np.array([[0.1, 0.2, 0.3], [0.9, -0.4, 0.1], [-0.8, 0.1, 0.9]]),
    ),
]  # fmt: skip


def randomise(model: nn.Module) -> naive_reference.Weights:
    """Set every weight, bias and buffer to a random value: no zero or one hides a term."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            width = value.shape[-1] if value.ndim > 1 else 1
            value.normal_(std=width**-0.5, generator=generator)
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_hamiltonian_is_that_of_the_naive_reference(settings: dict) -> None:
    config = SMALL(**settings)
    model = Helm(config)
    weights, batch = randomise(model), collate(MOLECULES, config)
    with torch.no_grad():
        onsite, offsite = model(batch)
        onsite += model.reference_onsite(batch)
    dense = assemble(batch, onsite, offsite, basis=config.basis, parity=config.parity)
    for molecule, matrix in zip(MOLECULES, (h.numpy() for h in dense), strict=True):
        naive = naive_reference.hamiltonian(molecule, weights, config)
        assert naive.shape == matrix.shape
        assert np.abs(matrix - naive).max() < MODEL[torch.float64] * np.abs(naive).max()


@pytest.mark.parametrize(
    "head",
    [HeadConfig(), HeadConfig(reads="last", invariants="scalars")],
    ids=["norms", "published"],
)
def test_energy_is_that_of_the_naive_reference(head: HeadConfig) -> None:
    config = SMALL()
    model = EnergyModel(config, head)
    weights = randomise(model)
    energies = model(collate(MOLECULES, config)).tolist()
    naive = [naive_reference.energy(molecule, weights, config, head) for molecule in MOLECULES]
    assert energies == pytest.approx(naive, rel=MODEL[torch.float64])
