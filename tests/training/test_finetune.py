"""Finetuning changes what it says and nothing else, and its energies keep the physics of the trunk.

Labels are atomic energies plus a made-up pair potential: additive where a test says so, learnable where it trains.
"""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from helm_scale import build
from helm_scale.batch import Method, Molecule
from helm_scale.config import FinetuneConfig, ModelConfig
from helm_scale.data.collate import collate
from helm_scale.data.shards import ShardWriter
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.model.weights import load_weights, save_weights
from helm_scale.training import finetune
from tests.rotations import random_rotation
from tests.tolerances import MODEL

ROOT = Path(__file__).parents[2]
MODES = ("direct", "frozen", "finetuned")
CONFIG = ModelConfig(
    basis="def2-svp", lmax=4, mmax=4, channels=8, hidden_channels=8, edge_channels=8, num_layers=1, radial_functions=8, trunk_cutoff=5.0
)
METHOD = Method("pbe", "def2-svp", "def2", 3, None, 1e-10, "none", "made up")
ATOMIC = {1: -0.5, 6: -37.8, 8: -75.0, 35: -2572.0}  # Hartree


def molecule(key: str, numbers: np.ndarray, x: np.ndarray, bonding: float) -> Molecule:
    """Energy: atoms plus `bonding` times a pair potential, Hartree."""
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(len(x), 1)]
    return Molecule(key, numbers, x, energy=sum(ATOMIC[int(z)] for z in numbers) - bonding * float(np.exp(-distance).sum()), method=METHOD)


def molecules(count: int, seed: int, bonding: float = 0.2) -> list[Molecule]:
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        size = int(rng.integers(2, 6))
        x = np.cumsum(rng.normal(size=(size, 3)) * 0.7 + 0.3, axis=0)
        found.append(molecule(f"{seed}-{index}", rng.choice(list(ATOMIC), size), x, bonding))
    return found


def backbone(config: ModelConfig = CONFIG) -> Helm:
    torch.manual_seed(5)
    return Helm(config)


def labels(bonding: float = 0.2, config: ModelConfig = CONFIG) -> finetune.EnergyLabels:
    return finetune.gather_labels(molecules(16, 1, bonding), molecules(5, 2, bonding), config)


def trained(mode: str, steps: int, config: ModelConfig = CONFIG, **settings: float) -> EnergyModel:
    model, _ = finetune.start(mode, backbone(config), labels(config=config), 0)
    finetune.train(model, mode, labels(config=config), FinetuneConfig(steps=steps, batch_molecules=4, **settings))
    return model


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Bitwise equality of all weights."""
    theirs = second.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("mode", MODES)
def test_zero_steps_change_nothing(mode: str) -> None:
    model = trained(mode, steps=0)
    assert same(model.trunk, backbone().trunk) == (mode != "direct")
    batch = collate(labels().test, CONFIG)
    wanted = torch.zeros(5, dtype=torch.float64).index_add(0, batch.molecule, labels().reference[batch.atomic_numbers])
    assert torch.equal(model(batch), wanted)


def test_frozen_leaves_the_backbone_as_it_was_to_the_last_bit() -> None:
    model = trained("frozen", steps=6)
    assert same(model.trunk, backbone().trunk)
    assert model.head.linear.weight.abs().max() > 0


def test_finetuned_trains_every_tensor_that_energies_depend_on() -> None:
    model, before = trained("finetuned", steps=3), backbone().trunk.state_dict()
    unmoved = [name for name, tensor in model.trunk.state_dict().items() if torch.equal(tensor, before[name])]
    batch = collate(labels().train, CONFIG)
    model(batch).sum().backward()
    blind = [name for name, parameter in model.trunk.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert sorted(unmoved) == sorted(blind)
    assert len(unmoved) < len(before) / 3


def test_cached_features_give_the_energies_of_the_model() -> None:
    model = trained("frozen", steps=2)
    batch = collate(labels().train[3:7], CONFIG)
    torch.testing.assert_close(finetune.cached(model, labels().train)(batch), model(batch), rtol=1e-12, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_the_seed_decides_everything(mode: str) -> None:
    assert same(trained(mode, steps=3), trained(mode, steps=3))
    other, _ = finetune.start(mode, backbone(), labels(), 1)
    finetune.train(other, mode, labels(), FinetuneConfig(steps=3, batch_molecules=4, seed=1))
    assert not same(other, trained(mode, steps=3))


def test_a_random_backbone_depends_on_the_seed_alone_and_disturbs_no_other_draw() -> None:
    helm, found = backbone(), labels()
    first, state = finetune.start("direct", helm, found, 0)[0], torch.get_rng_state()
    torch.rand(1)
    assert same(first, finetune.start("direct", helm, found, 0)[0])
    torch.set_rng_state(state)
    finetune.start("direct", helm, found, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", ["direct", "finetuned"])
def test_training_learns_what_references_cannot(mode: str) -> None:
    alone = finetune.errors(trained(mode, steps=0), labels().train)
    after = finetune.errors(trained(mode, steps=150, learning_rate=5e-3, backbone_learning_rate=5e-3), labels().train)
    assert after.mae < 0.3 * alone.mae and after.mae_per_atom < 0.3 * alone.mae_per_atom


def test_references_are_exact_for_additive_energies() -> None:
    found = labels(bonding=0.0)
    assert {z: round(float(energy), 6) for z, energy in enumerate(found.reference) if abs(energy) > 1e-6} == ATOMIC
    model, counts = finetune.start("frozen", backbone(), found, 0)
    assert finetune.errors(model, found.test).mae < 1e-8
    assert counts.frozen == len(list(model.trunk.parameters())) and (counts.kept, counts.new) == (0, 1)


def test_errors_per_atom_divide_by_the_atoms_of_each_molecule() -> None:
    two, four = (molecule(str(n), np.ones(n, dtype=np.int64), np.eye(4, 3)[:n] * 9.0, 0.0) for n in (2, 4))
    model, _ = finetune.start("direct", backbone(), finetune.gather_labels([two], [two], CONFIG), 0)
    assert two.energy is not None and four.energy is not None
    shifted = [replace(two, energy=two.energy + 0.2), replace(four, energy=four.energy - 0.8)]
    found = finetune.errors(model, shifted)
    assert found.mae == pytest.approx(0.5) and found.mae_per_atom == pytest.approx((0.1 + 0.2) / 2)


def test_trained_energies_are_invariant_permute_and_add_up() -> None:
    config = CONFIG.model_copy(update={"dtype": "float64"})
    model = trained("finetuned", steps=5, config=config)
    numbers, x = np.array([6, 1, 35, 8, 1]), np.random.default_rng(4).normal(size=(5, 3)) * 1.5
    x[1] = x[0] + [0, 0, 1.1]
    order = np.array([3, 0, 4, 2, 1])
    far = np.concatenate([x, x @ random_rotation(2).numpy().T + [40.0, 0, 0]])
    variants = [(numbers, x), (numbers, x @ random_rotation(1).numpy().T + 2.0), (numbers[order], x[order]), (np.tile(numbers, 2), far)]
    batch = collate([molecule(str(i), *variant, 0.0) for i, variant in enumerate(variants)], config)
    with torch.no_grad():
        alone = model(collate([molecule("alone", numbers, x, 0.0)], config))
        energy = model(batch)
        learned = energy - energy.new_zeros(4).index_add(0, batch.molecule, model.reference[batch.atomic_numbers])
    limit = MODEL[torch.float64] * float(alone.abs())
    assert (energy - alone * torch.tensor([1, 1, 1, 2])).abs().max() < limit
    assert learned.abs().min() > 1e-4  # the comparison would notice a head that does nothing


def test_an_exact_fit_does_not_end_in_nan() -> None:
    one = molecules(1, 1)
    found = finetune.gather_labels(one, one, CONFIG)
    model, _ = finetune.start("finetuned", backbone(), found, 0)
    finetune.train(model, "finetuned", found, FinetuneConfig(steps=3))
    assert finetune.errors(model, found.test).mae < 1e-3


def test_molecules_without_a_defined_reference_are_left_out_and_named() -> None:
    pair = [molecule("HBr", np.array([1, 35]), np.eye(2, 3), 0.1)]
    asked = [
        molecule("H2Br2", np.array([1, 35, 1, 35]), 2 * np.eye(4, 3), 0.1),
        molecule("Br2", np.array([35, 35]), np.eye(2, 3), 0.1),
        molecule("CH", np.array([6, 1]), np.eye(2, 3), 0.1),
    ]
    found = finetune.gather_labels(pair, asked, CONFIG)
    assert found.skipped == ("Br2", "CH") and [m.key for m in found.test] == ["H2Br2"]
    with pytest.raises(ValueError, match="none of 2 molecules has a composition that the 1 training molecules span"):
        finetune.gather_labels(pair, asked[1:], CONFIG)


def test_a_molecule_without_energy_is_named() -> None:
    with pytest.raises(ValueError, match="molecule '2-0': no energy"):
        finetune.gather_labels(molecules(3, 1), [replace(molecules(1, 2)[0], energy=None)], CONFIG)


def test_every_sample_comes_once_per_epoch() -> None:
    drawn = [i for batch in islice(finetune.sample_order(10, 4, seed=3), 5) for i in batch]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10)) and drawn[:10] != drawn[10:]
    assert sorted(next(finetune.sample_order(3, 8, seed=3))) == [0, 1, 2]


def test_the_launcher_writes_table_record_and_models(tmp_path: Path) -> None:
    source, data, out = tmp_path / "step-00000001", tmp_path / "data", tmp_path / "out"
    source.mkdir()
    save_weights(backbone().state_dict(), source / "model.safetensors")
    record = {"model": CONFIG.model_dump(mode="json"), "method": asdict(METHOD)}
    (source / "model.json").write_text(json.dumps(record))
    writer = ShardWriter(data, METHOD, "CC0-1.0", "test", 64)
    for split, count, seed in (("train", 8, 1), ("test", 3, 2)):
        for one in molecules(count, seed):
            writer.write(one, split)
    writer.close()
    command = [sys.executable, "launch/finetune.py", "--source", source, "--data", data, "--out", out, "--steps", "2", "--threads", "1"]
    result = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == (out / "table.md").read_text().strip()
    assert [line.split("|")[1].strip() for line in result.stdout.splitlines()[2:6]] == ["reference energies only", *MODES]
    report = json.loads((out / "report.json").read_text())
    assert [row["mode"] for row in report["rows"]] == ["reference energies only", *MODES] and report["train_molecules"] == 8
    model = EnergyModel(CONFIG)
    model.load_state_dict(load_weights(out / "finetuned" / "model.safetensors"))
    assert finetune.errors(model, molecules(3, 2)).mae == pytest.approx(report["rows"][3]["test"]["mae"])
    with pytest.raises(ValueError, match="no split 'exam'; known: train, test"):
        build.finetune(FinetuneConfig(source=str(source), data=str(data), test_split="exam"))
