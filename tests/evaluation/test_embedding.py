"""The embedding map: principal components of what was put in; environments by their names."""

import numpy as np
import pytest
import torch

from helm_scale.config import ModelConfig
from helm_scale.evaluation import embedding
from helm_scale.model.energy import EnergyModel
from helm_scale.types import Molecule
from tests.rotations import random_rotation

METHANOL = Molecule(
    "methanol", np.array([6, 8, 1, 1, 1, 1]),
    np.array([
        [0.0, 0, 0], [1.42, 0, 0], [1.75, 0.9, 0],
        [-0.36, 1.02, 0], [-0.36, -0.5, 0.9], [-0.36, -0.5, -0.9],
    ]),
)  # fmt: skip


def test_principal_components_are_found_whatever_the_rotation_of_the_channels() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(200, 5)) * np.array([5.0, 2.0, 0.1, 0.1, 0.1])
    turned = points @ np.linalg.qr(generator.normal(size=(5, 5)))[0]
    found = embedding.map_features(turned + 7.0)
    centred = points - points.mean(axis=0)
    for place in (0, 1):
        assert abs(np.corrcoef(found.components[:, place], centred[:, place])[0, 1]) > 0.99
    assert found.explained == pytest.approx(
        np.square(centred[:, :2]).sum(axis=0) / np.square(centred).sum(), rel=1e-2
    )


def test_environments_are_named_by_element_and_near_neighbours() -> None:
    helium = Molecule("he", np.array([2]), np.zeros((1, 3)))
    assert embedding.environments([METHANOL, helium]) == [
        "C(HHHO)",
        "O(CH)",
        "H(O)",
        "H(C)",
        "H(C)",
        "H(C)",
        "He()",
    ]


def test_separation_is_the_share_of_variance_between_groups() -> None:
    points = np.array([[0.0, 0], [0, 0], [2, 0], [2, 0]])
    assert embedding.separation(points, ["a", "a", "b", "b"]) == pytest.approx(1.0)
    assert embedding.separation(points, ["a", "b", "a", "b"]) == pytest.approx(0.0)


def test_features_are_invariant_to_rotations() -> None:
    config = ModelConfig(
        mmax=1,
        channels=4,
        hidden_channels=4,
        edge_channels=8,
        num_layers=1,
        radial_functions=8,
        dtype="float64",
    )
    torch.manual_seed(0)
    model = EnergyModel(config).eval()
    turned = Molecule(
        "turned", METHANOL.atomic_numbers, METHANOL.positions @ random_rotation(3).numpy().T
    )
    features = embedding.node_features(model, [METHANOL, turned])
    assert features.shape == (12, 4) and np.abs(features[:6] - features[6:]).max() < 1e-10
    assert np.abs(features[0] - features[1]).max() > 1e-3
