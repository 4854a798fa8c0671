"""The loader's interface: features of molecules and of ASE Atoms, and what is refused."""

import copy
import pickle
from pathlib import Path

import ase
import ase.build
import numpy as np
import pytest
import torch

import helm_scale
from helm_scale.data.graphs import neighbors as graphs
from helm_scale.export import bundle, loader
from tests.export.conftest import graph, make_model
from tests.rotations import random_rotation

METHANOL = ase.build.molecule("CH3OH")


@pytest.fixture(scope="module")
def backbone(pristine: Path) -> loader.Backbone:
    return helm_scale.Backbone.from_pretrained(pristine)


def test_the_bundle_carries_this_very_loader(pristine: Path) -> None:
    assert (pristine / bundle.LOADER).read_bytes() == Path(loader.__file__).read_bytes()


def test_backbone_and_loader_give_the_features_of_the_model(
    pristine: Path, backbone: loader.Backbone
) -> None:
    wanted = make_model().trunk(graph([5, 3]))
    for one in (backbone, loader.load(pristine)):
        torch.testing.assert_close(one(*graph([5, 3])), wanted, rtol=1e-6, atol=1e-6)
        assert (one.irreps, one.cutoff, one.layers) == (
            "8x0e+8x1o+8x2e+8x3o+8x4e+8x5o+8x6e",
            6.0,
            1,
        )
        assert one.train() is one and one.eval() is one


def test_a_backbone_survives_pickle_torch_save_and_deepcopy(
    backbone: loader.Backbone, tmp_path: Path
) -> None:
    torch.save(backbone, tmp_path / "backbone.pt")
    for copied in (
        pickle.loads(pickle.dumps(backbone)),
        torch.load(tmp_path / "backbone.pt", weights_only=False),
        copy.deepcopy(backbone),
    ):
        assert torch.equal(copied.features(METHANOL), backbone.features(METHANOL))


def test_features_of_a_list_are_those_of_each_in_batches_of_few_atoms(
    backbone: loader.Backbone,
) -> None:
    hydroxide = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1})
    frames = [METHANOL, hydroxide, ase.build.molecule("C6H6"), METHANOL]
    found = list(backbone.features_of(iter(frames), atoms_per_batch=8))
    for features, atoms in zip(found, frames, strict=True):
        torch.testing.assert_close(features, backbone.features(atoms), rtol=1e-5, atol=1e-5)
    invariant = next(backbone.features_of(frames, invariants=True))
    torch.testing.assert_close(invariant, found[0][:, 0], rtol=1e-5, atol=1e-5)


def test_no_constant_of_the_program_is_bound_to_the_cpu(pristine: Path) -> None:
    network = loader.load(pristine, device="cpu").network
    moved = torch.export.passes.move_to_device_pass(
        torch.export.load(pristine / "model.pt2"), "meta"
    ).module()
    arguments = graph([5, 3])
    assert moved(*(x.to("meta") for x in arguments))[-1].shape == network(*arguments)[-1].shape


def test_features_of_atoms_by_layer_and_kind(backbone: loader.Backbone) -> None:
    features = backbone.features(METHANOL)
    assert features.shape == (6, 49, 8)
    torch.testing.assert_close(backbone.features(METHANOL, layer=0), features)
    torch.testing.assert_close(backbone.features(METHANOL, invariants=True), features[:, 0])
    with pytest.raises(IndexError):
        backbone.features(METHANOL, layer=1)


def test_invariant_features_do_not_change_and_the_others_keep_their_norm_when_atoms_turn(
    backbone: loader.Backbone,
) -> None:
    turned = METHANOL.copy()
    turned.positions = METHANOL.positions @ random_rotation(3).numpy().T + [1.0, -2.0, 3.0]
    before, after = backbone.features(METHANOL), backbone.features(turned)
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        after[:, 1:4].norm(dim=1), before[:, 1:4].norm(dim=1), rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(after[:, 1:4], before[:, 1:4], atol=1e-2)


def test_charge_and_spin_of_atoms_reach_the_features(backbone: loader.Backbone) -> None:
    def of(**info: int) -> torch.Tensor:
        atoms = ase.Atoms("O2", ase.build.molecule("O2").positions)
        atoms.info.update(info)
        return backbone.features(atoms)

    assert torch.equal(of(), of(charge=0, spin=1))
    assert not torch.allclose(of(), of(spin=3), atol=1e-3) and not torch.allclose(
        of(), of(charge=2), atol=1e-3
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"charge": 1}, r"17 electrons \(charge \+?1\).* wanted an"),
        ({"spin": 2}, r"18 electrons \(charge \+?0\)"),
        ({"spin": 0}, r"spin: got 0, wanted 1 to 8|spin is read as 2S\+1"),
        ({"spin": 9}, r"spin: got 9, wanted 1 to 8"),
        ({"charge": -8}, r"charge: got -8, wanted -6 to 6"),
        ({"total_charge": 1}, "total_charge.*; rename it|17 electrons"),
        ({"q": 2, "charge": 0}, '"q".*; rename it|charge=0, contradict|q=2, charge=0 contradict'),
        ({"charge": 0.5}, r"info.*charge.*: got 0.5, wanted an integer"),
    ],
    ids=str,
)
def test_wrong_charge_and_spin_are_refused(
    backbone: loader.Backbone, change: dict[str, float], message: str
) -> None:
    atoms = METHANOL.copy()
    atoms.info.update(change)
    with pytest.raises(ValueError, match=message):
        backbone.features(atoms)


def test_the_lone_loader_refuses_names_that_it_does_not_read() -> None:
    for name in ("total_charge", "Total_Charge", "multiplicity", "q", "S"):
        atoms = METHANOL.copy()
        atoms.info[name] = 2
        with pytest.raises(ValueError, match=f'"{name}".*rename it'):
            loader.read_atoms(atoms)


def test_foreign_elements_periodic_atoms_and_wrong_edges_are_refused(
    backbone: loader.Backbone,
) -> None:
    with pytest.raises(ValueError, match="atomic_numbers: got 92"):
        backbone.features(ase.Atoms("U"))
    with pytest.raises(ValueError, match=r"got .*, wanted a molecule"):
        backbone.features(ase.build.bulk("Cu"))
    positions, numbers, edges, *others = graph([3])
    for wrong in (torch.cat([edges, edges.flip(0)], dim=1), torch.tensor([[1], [1]])):
        with pytest.raises(ValueError, match="edge_index: got a pair twice"):
            backbone(positions, numbers, wrong, *others)


def test_neighbours_are_those_of_the_training_graphs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(7, 3)) * 4, rng.normal(size=(5, 3)) * 4
    got = loader.neighbours(
        torch.tensor(np.concatenate([first, second])), torch.tensor([0] * 7 + [1] * 5), 6.0
    )
    pairs, distance = graphs.atom_pairs(
        ["first", "second"], [7, 5], np.concatenate([first, second])
    )
    wanted = pairs[:, distance < 6.0]
    assert got.tolist() == wanted.tolist() and 0 < len(wanted.T) < 31


def test_an_unseen_element_is_refused_and_what_is_extrapolated_is_said_once(
    pristine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strict = helm_scale.Backbone.from_pretrained(pristine)
    with pytest.raises(ValueError, match="element N: never seen in training, which had H C O I Bi"):
        strict.features(ase.build.molecule("NH3"))
    # Atoms of two molecules in turn
    positions = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    numbers, owner = torch.tensor([6, 7, 1, 8, 1, 1]), torch.tensor([0, 1, 0, 1, 0, 1])
    edges, zero, one = torch.zeros((2, 0), dtype=torch.long), torch.zeros(2).long(), torch.ones(2)
    with pytest.raises(ValueError, match="'molecule 1': element N"):
        strict(positions, numbers, edges, owner, zero, one.long())
    benzene = ase.build.molecule("C6H6")
    for _ in range(3):
        strict.features(benzene)
    assert len(caplog.records) == 1 and "more than 8 atoms" in caplog.text
    caplog.clear()
    free = helm_scale.Backbone.from_pretrained(pristine, allow_extrapolation=True)
    free.features(ase.build.molecule("NH3"))
    assert torch.equal(free.features(benzene), strict.features(benzene)) and not caplog.records
