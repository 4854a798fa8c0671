"""What the network reads beside the molecule reaches its own atom or pair, and turns with it.

Matrices are random and asymmetric in nothing but their blocks; with the trunk's cutoff below any
distance atoms exchange no messages, so that whatever a block changes shows where the network took
it.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from helm_scale.basis import layout
from helm_scale.basis.assembly import assemble
from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.model import flow
from helm_scale.model.conditioning import FlowPoint
from helm_scale.model.helm import Helm
from helm_scale.types import GraphBatch, Molecule
from tests.model.test_chunks import labelled_batch, loss_and_gradients
from tests.model.test_physics import build, relative
from tests.rotations import ao_rotation, random_rotation
from tests.tolerances import CHUNKS, MODEL

NUMBERS = np.array([8, 1, 6, 1, 16])
SMALL = partial(
    ModelConfig,
    basis="def2-svp",
    parity="full",
    lmax=4,
    mmax=4,
    channels=4,
    hidden_channels=4,
    edge_channels=8,
    num_layers=1,
    radial_functions=8,
    dtype="float64",
)
ALL = SMALL(
    baseline="minao",
    conditions=("overlap", "baseline_hamiltonian"),
    prior="irreps",
    flow_steps=2,
    tensor_product_stage=True,
    stage_cutoff=3.0,
)


def sample(seed: int, key: str = "m") -> Molecule:
    """Five atoms with random S and H0."""
    rng = np.random.default_rng(seed)
    size = int(layout.ao_offsets("def2-svp", NUMBERS)[-1])
    s, h = (raw + raw.T for raw in rng.normal(size=(2, size, size)))
    return Molecule(key, NUMBERS, rng.normal(size=(5, 3)) * 1.6, overlap=s, baseline_hamiltonian=h)


def dense(batch: GraphBatch, onsite: torch.Tensor, offsite: torch.Tensor) -> list[np.ndarray]:
    parts = (onsite.detach(), offsite.detach())
    return [h.numpy() for h in assemble(batch, *parts, basis="def2-svp", parity="full")]


def predicted(
    model: Helm, molecules: list[Molecule], start: list[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Dense samples, from the prior's draw or from dense matrices."""
    batch, point = collate(molecules, model.config), None
    if start is not None:
        plain = model.config.model_copy(update={"baseline": "none"})
        begin = collate(
            [replace(m, hamiltonian=x) for m, x in zip(molecules, start, strict=True)], plain
        )
        point = FlowPoint(
            torch.zeros(len(molecules), dtype=torch.float64),
            begin.onsite_target,
            begin.offsite_target,
        )
    with torch.no_grad():
        return dense(batch, *model.predict(batch, point))


def drawn(model: Helm, molecule: Molecule) -> np.ndarray:
    """The prior's draw, dense."""
    batch = collate([molecule], model.config)
    point = flow.prior_point(model.config, batch)
    return dense(batch, point.onsite, point.offsite)[0]


def turned(matrix: np.ndarray, turn: np.ndarray) -> np.ndarray:
    return turn @ matrix @ turn.T


@pytest.fixture(scope="module")
def model() -> Helm:
    return build(ALL).eval()


def test_a_sample_turns_with_the_molecule_and_the_draw(model: Helm) -> None:
    rotation, before = random_rotation(3), sample(0)
    turn = ao_rotation(rotation, "def2-svp", NUMBERS)
    after = replace(
        before,
        positions=np.ascontiguousarray(before.positions @ rotation.numpy().T),
        overlap=turned(before.overlap, turn),
        baseline_hamiltonian=turned(before.baseline_hamiltonian, turn),
    )
    start = drawn(model, before)
    first, second = predicted(model, [before, after], [start, turned(start, turn)])
    assert relative(second - turned(first, turn), first) < MODEL[torch.float64]
    (other,) = predicted(model, [after], [start])
    # The comparison would notice a model that ignores its start.
    assert relative(other - second, first) > 1e-3


def test_a_sample_is_hermitian_to_the_last_bit(model: Helm) -> None:
    (matrix,) = predicted(model, [sample(0)])
    assert (matrix == matrix.T).all() and np.count_nonzero(matrix) > 0.9 * matrix.size


def test_a_sample_permutes_with_the_atoms(model: Helm) -> None:
    order, before = np.array([3, 0, 4, 2, 1]), sample(0)
    offsets = layout.ao_offsets("def2-svp", NUMBERS)
    aos = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in order])
    moved = np.ix_(aos, aos)
    after = replace(
        before,
        atomic_numbers=NUMBERS[order],
        positions=before.positions[order],
        overlap=before.overlap[moved],
        baseline_hamiltonian=before.baseline_hamiltonian[moved],
    )
    start = drawn(model, before)
    first, second = (
        predicted(model, [before], [start])[0],
        predicted(model, [after], [start[moved]])[0],
    )
    assert relative(second - first[moved], first) < MODEL[torch.float64]


def test_a_sample_is_the_same_alone_and_anywhere_in_a_batch(model: Helm) -> None:
    several = [sample(0, "a"), sample(1, "b"), replace(sample(2, "c"), charge=1)]
    alone = [predicted(model, [one])[0] for one in several]
    for order in ((0, 1, 2), (2, 0, 1)):
        together = predicted(model, [several[i] for i in order])
        assert all(
            relative(found - alone[i], alone[i]) < MODEL[torch.float64]
            for found, i in zip(together, order, strict=True)
        )
    assert (
        relative(alone[0] - predicted(model, [replace(several[0], key="other")])[0], alone[0])
        > 1e-6
    )


@pytest.mark.parametrize("name", ["overlap", "baseline_hamiltonian", "start"])
def test_a_block_reaches_its_own_atom_or_pair_and_no_other(name: str) -> None:
    model = build(ALL.model_copy(update={"trunk_cutoff": 0.1, "flow_steps": 1})).eval()
    molecules, offsets = [sample(0, "a"), sample(1, "b")], layout.ao_offsets("def2-svp", NUMBERS)
    start = [drawn(model, molecule) for molecule in molecules]
    block = [slice(a, b) for a, b in pairwise(offsets)]
    before = predicted(model, molecules, start)
    for i, j in ((3, 3), (2, 4)):
        source = start[1] if name == "start" else getattr(molecules[1], name)
        changed = source.copy()
        changed[block[i], block[j]] *= 1.5
        changed[block[j], block[i]] = changed[block[i], block[j]].T
        others = [
            molecules[0],
            molecules[1] if name == "start" else replace(molecules[1], **{name: changed}),
        ]
        after = predicted(model, others, [start[0], changed] if name == "start" else start)
        assert (after[0] == before[0]).all()
        difference = np.abs(after[1] - before[1])
        assert difference[block[i], block[j]].max() > 1e-6
        touched = {
            (a, b)
            for a in range(5)
            for b in range(5)
            if difference[block[a], block[b]].max() > 1e-12
        }
        pairs_of_atom = {(i, b) for b in range(5)} | {(a, i) for a in range(5)}
        assert touched <= (pairs_of_atom if i == j else {(i, j), (j, i)})


def test_every_molecule_has_its_own_time(model: Helm) -> None:
    batch = collate([sample(0, "a"), sample(1, "b")], model.config)
    point = flow.prior_point(model.config, batch)
    found = []
    with torch.no_grad():
        for times in ([0.2, 0.9], [0.2, 0.4]):
            at = point._replace(time=torch.tensor(times, dtype=torch.float64))
            found.append(dense(batch, *model._run(batch, at, None)))
    assert relative(found[0][0] - found[1][0], found[0][0]) < 1e-13
    blocks = np.abs(found[0][1] - found[1][1])
    offsets = layout.ao_offsets("def2-svp", NUMBERS)[:-1]
    assert (np.add.reduceat(np.add.reduceat(blocks, offsets, 0), offsets, 1) > 1e-6).all()


def test_chunks_change_neither_the_loss_nor_any_gradient_of_a_flow() -> None:
    tzvpd = {"basis": "def2-tzvpd", "lmax": 6, "parity": "semilocal"}
    model = build(ALL.model_copy(update={"conditions": (), "baseline": "none", "mmax": 2, **tzvpd}))
    batch = labelled_batch(model.config)
    found = []
    for chunk in (0, 5):
        model.set_memory(chunk, "none", 1)
        found.append(loss_and_gradients(model, batch))
    (plain, wanted), (fused, gradients) = found
    assert abs(fused.total - plain.total) < CHUNKS * plain.total
    assert gradients.keys() == dict(model.named_parameters()).keys()
    largest = max(gradient.abs().max() for gradient in wanted.values())
    for name, gradient in gradients.items():
        scale = max(wanted[name].abs().max(), 1e-3 * largest)
        assert (gradient - wanted[name]).abs().max() < CHUNKS * scale, name


def test_every_parameter_takes_part_even_without_pairs() -> None:
    model = build(ALL)
    lone = Molecule(
        "m", np.array([1]), np.zeros((1, 3)), overlap=np.eye(5), baseline_hamiltonian=np.eye(5)
    )
    prediction = model(collate([lone], model.config))
    (prediction.onsite.sum() + prediction.offsite.sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
