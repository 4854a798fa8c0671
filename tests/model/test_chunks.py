"""What is held in memory changes no number: chunks and recomputation against one graph."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch._dynamo

from helm_scale.basis import layout
from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.losses.hamiltonian import HamiltonianObjective, LossSums
from helm_scale.model.helm import Helm
from helm_scale.types import GraphBatch, Molecule, PairChunk, PairSums, Prediction
from tests.tolerances import CHUNKS

SMALL = partial(
    ModelConfig,
    channels=8,
    hidden_channels=8,
    edge_channels=8,
    num_layers=2,
    pair_layers=2,
    radial_functions=8,
    dtype="float64",
)
MEMORY = [
    (chunk, recompute, edges)
    for chunk in (1, 7, 64, 1000)
    for recompute, edges in (("none", 5), ("messages", 3), ("full", 50))
]


def labelled_batch(config: ModelConfig) -> GraphBatch:
    """Two molecules with random targets; like and unlike pairs, one beyond the message cutoff."""
    rng = np.random.default_rng(0)
    numbers = [np.array([6, 1, 1, 53, 8, 6, 1, 8]), np.array([1, 1, 17])]
    molecules = [
        Molecule(
            f"m{i}", z, np.stack([1.2 * np.arange(len(z)), *rng.normal(size=(2, len(z)))], axis=1)
        )
        for i, z in enumerate(numbers)
    ]
    batch = collate(molecules, config)
    size = {
        "onsite_target": sum(
            s.count * layout.onsite_layout(config.basis, s.first, config.parity).size
            for s in batch.atom_segments
        ),
        "offsite_target": sum(
            s.count * layout.offsite_layout(config.basis, s.first, s.second).size
            for s in batch.pair_segments
        ),
    }
    targets = {name: torch.from_numpy(rng.normal(size=count)) for name, count in size.items()}
    return replace(batch, **targets, matrix_elements=torch.tensor([5000, 3000]))


def loss_and_gradients(model: Helm, batch: GraphBatch) -> tuple[LossSums, dict[str, torch.Tensor]]:
    objective = HamiltonianObjective(
        model.config.basis, model.config.parity, model.reference_onsite
    )
    model.zero_grad()
    sums = objective(model, batch)
    objective.loss(sums.total, sums.count).backward()
    return sums, {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.fixture(
    scope="module", params=[{}, {"pair_inputs": "each", "mmax": 3}], ids=["last", "each-mmax3"]
)
def plain(
    request: pytest.FixtureRequest,
) -> tuple[Helm, GraphBatch, LossSums, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = Helm(SMALL(trunk_cutoff=4.0, **request.param))
    batch = labelled_batch(model.config)
    model.set_memory(0, "none", 1)
    return model, batch, *loss_and_gradients(model, batch)


@pytest.mark.parametrize(("pairs", "recompute", "edges"), MEMORY)
def test_chunks_change_neither_the_loss_nor_any_gradient(
    plain: tuple, pairs: int, recompute: str, edges: int
) -> None:
    model, batch, wanted, wanted_gradients = plain
    model.set_memory(pairs, recompute, edges)
    sums, gradients = loss_and_gradients(model, batch)
    assert abs(sums.total - wanted.total) < CHUNKS * wanted.total
    assert all(
        abs(sums.metrics[name][0] - wanted.metrics[name][0]) < CHUNKS * wanted.metrics[name][0]
        for name in wanted.metrics
    )
    assert gradients.keys() == wanted_gradients.keys() == dict(model.named_parameters()).keys()
    largest = max(gradient.abs().max() for gradient in wanted_gradients.values())
    for name, gradient in gradients.items():
        scale = max(wanted_gradients[name].abs().max(), 1e-3 * largest)
        assert (gradient - wanted_gradients[name]).abs().max() < CHUNKS * scale, name


# Of torch itself, which looks at what it compiles
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.slow
def test_compiled_layers_are_one_graph_each_and_change_no_number() -> None:
    torch.manual_seed(0)
    model = Helm(SMALL(trunk_cutoff=4.0, num_layers=1, pair_layers=1))
    batch = labelled_batch(model.config)
    model.set_memory(
        9, "messages", 5
    )  # no chunk of one, or as long as another axis: such are graphs of their own
    wanted, wanted_gradients = loss_and_gradients(model, batch)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.compile_layers(backend="eager")
    sums, gradients = loss_and_gradients(model, batch)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert abs(sums.total - wanted.total) < CHUNKS * wanted.total
    largest = max(gradient.abs().max() for gradient in wanted_gradients.values())
    assert all(
        (gradient - wanted_gradients[name]).abs().max() < CHUNKS * largest
        for name, gradient in gradients.items()
    )


def test_predictions_are_the_same_in_chunks(plain: tuple) -> None:
    model, batch, _, _ = plain
    offsite = []
    for chunk in (0, 5):
        model.set_memory(chunk, "none", 1)
        with torch.no_grad():
            offsite.append(model(batch).offsite)
    assert (offsite[0] - offsite[1]).abs().max() < CHUNKS * offsite[0].abs().max()


def test_chunks_take_every_pair_and_label_once(plain: tuple) -> None:
    _, batch, _, _ = plain
    for length in (0, 1, 7, 64):
        chunks = batch.pair_chunks(length, lambda s: s.first + s.second)
        assert [c.start for c in chunks[1:]] == [c.stop for c in chunks[:-1]] and chunks[
            0
        ].start == 0
        assert chunks[-1].stop == batch.pair_index.shape[1]
        kinds = [(s.first, s.second) for c in chunks for s in c.segments for _ in range(s.count)]
        assert kinds == [(s.first, s.second) for s in batch.pair_segments for _ in range(s.count)]
        assert [c.flat.start for c in chunks[1:]] == [c.flat.stop for c in chunks[:-1]]
        assert chunks[-1].flat.stop == sum(a + b for a, b in kinds)


@pytest.mark.parametrize("chunk", [0, 4])
def test_a_loss_over_pairs_sees_what_is_predicted(plain: tuple, chunk: int) -> None:
    model, batch, _, _ = plain
    seen: list[torch.Tensor] = []

    def loss(pairs: PairChunk, irreps: torch.Tensor) -> torch.Tensor:
        assert len(irreps) == pairs.flat.stop - pairs.flat.start
        seen.append(irreps.detach())
        return torch.stack([irreps.square().sum(), irreps.new_tensor(float(len(irreps)))])

    model.set_memory(chunk, "none", 1)
    sums, prediction = model.pair_loss(batch, loss), model.predict(batch)
    assert isinstance(sums, PairSums) and isinstance(prediction, Prediction)
    torch.testing.assert_close(torch.cat(seen), prediction.offsite, rtol=CHUNKS, atol=1e-12)
    torch.testing.assert_close(sums.onsite, prediction.onsite, rtol=CHUNKS, atol=0)
    assert float(sums.offsite[1].detach()) == len(prediction.offsite)
    assert isinstance(model(batch, loss), PairSums) and isinstance(model(batch), Prediction)
    model.set_memory(0, "none", 1)


def test_shares_of_the_message_edges_add_up(plain: tuple) -> None:
    model, batch, _, _ = plain
    first_sums = []
    for rank, world_size in ((0, 1), (0, 3), (1, 3), (2, 3)):
        sums: list[torch.Tensor] = []

        def keep(total: torch.Tensor, sums: list[torch.Tensor] = sums) -> torch.Tensor:
            sums.append(total.detach())
            return total

        model.set_pair_shard(rank, world_size, all_reduce=keep)
        model.trunk.states(batch.geometry)
        first_sums.append(sums[0])  # later ones hang on the states that all ranks have made
    model.set_pair_shard(0, 1, all_reduce=lambda total: total)
    whole, *shares = first_sums
    assert all(share.abs().max() > 0.1 * whole.abs().max() for share in shares)
    assert (torch.stack(shares).sum(0) - whole).abs().max() < CHUNKS * whole.abs().max()


def test_shares_of_the_pairs_add_up(plain: tuple) -> None:
    model, batch, wanted, _ = plain
    objective = HamiltonianObjective(
        model.config.basis, model.config.parity, model.reference_onsite
    )
    shared = replace(batch, pair_world_size=3)
    sums = []
    for rank in range(3):
        model.pairs.pair_rank, model.pairs.pair_world_size = rank, 3
        sums.append(objective(model, shared))
    model.pairs.pair_rank, model.pairs.pair_world_size = 0, 1
    assert abs(sum(s.total for s in sums) - wanted.total) < CHUNKS * wanted.total
    assert abs(sum(s.count for s in sums) - wanted.count) < CHUNKS * wanted.count
    assert len({s.total.item() for s in sums}) == 3
    for name, (total, count) in wanted.metrics.items():
        parts = [torch.stack(s.metrics[name]) for s in sums]
        torch.testing.assert_close(
            torch.stack(parts).sum(0), torch.stack([total, count]), rtol=CHUNKS, atol=0
        )
