"""Operations that one training step asks of a device, and copies of host tensors that block it.

Every operation of torch is one kernel launch at least, some 10 microseconds of host time, whatever
its size. Counted by a dispatch mode on meta tensors, so no GPU is needed; views cost nothing and do
not count. The step that is counted is not the first, which moves constant tables to the device.

    python benchmarks/launches.py [--quick] [--limit-gib 40]
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from report import command_line, report
from synthetic import Step, batch_of, labelled, molecule
from synthetic import model_config as config_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helm_scale.basis import elements
from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.pretraining.memory.chunks import ChunkSettings
from helm_scale.pretraining.memory.footprint import StepEstimator
from helm_scale.types import GraphBatch, Molecule

# Without work for a device, though torch does not call them views.
FREE = ("aten.empty", "aten.new_empty", "aten._unsafe_view", "aten.detach", "aten.lift_fresh")
CONFIGURED = ChunkSettings(512, "messages", 512)  # chunks of configs/omol_csh_58k.yaml
LARGEST_FIRST = [
    ChunkSettings(0, "none", 1),
    *(ChunkSettings(size, "none", 1) for size in (8192, 4096, 2048, 1024, 512)),
]


class LaunchCounter(TorchDispatchMode):
    """Counts operations on meta tensors by name, and copies from the host to them."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.copies = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        if _on_device(result) and not func.is_view and not str(func).startswith(FREE):
            self.operations[str(func)] += 1
            self.copies += any(
                isinstance(leaf, Tensor) and leaf.device.type == "cpu" and leaf.ndim > 0
                for leaf in tree_leaves((args, kwargs))
            )
        return result


def _on_device(result: Any) -> bool:
    return any(isinstance(x, Tensor) and x.device.type == "meta" for x in tree_leaves(result))


def many_elements(count: int) -> Molecule:
    """40 atoms on the grid of `molecule`, of so many elements in turn."""
    like = molecule(40)
    numbers = [z for z in elements.supported("def2-tzvpd")][:count]
    return Molecule(f"{count}-elements", np.array(numbers)[np.arange(40) % count], like.positions)


def cases(quick: bool) -> dict[str, tuple[ModelConfig, GraphBatch, bool]]:
    """Name -> model, micro-batch, and whether chunks grow to the limit or are as configured."""
    published, lean = config_of("omol_csh_58k", quick), config_of("omol_csh_58k_lean", quick)
    small, large = (12, 16) if quick else (40, 150)
    sixteen = [molecule(10, seed) for seed in range(16)]
    return {
        f"published, {small} atoms": (published, batch_of(small, published), True),
        f"published, {large} atoms": (published, batch_of(large, published), True),
        f"published, {large} atoms, chunks of 512": (published, batch_of(large, published), False),
        f"lean, {small} atoms": (lean, batch_of(small, lean), True),
        "published, 16 molecules of 10 atoms": (published, _batch(sixteen, published), True),
        "lean, 4 elements": (lean, _batch([many_elements(4)], lean), True),
        "lean, 20 elements": (lean, _batch([many_elements(20)], lean), True),
    }


def _batch(molecules: Sequence[Molecule], config: ModelConfig) -> GraphBatch:
    return labelled(collate(molecules, config), config)


def measure(
    config: ModelConfig, batch: GraphBatch, *, grow: bool, limit_gib: float
) -> dict[str, Any]:
    """Operations of the second step of a micro-batch, and copies from the host among them.

    Args:
        grow: take the largest chunks that the limit allows, else those of the published config.
    """
    batch = batch.to("meta")
    chunks = largest_chunks(config, batch, limit_gib) if grow else CONFIGURED
    step = Step(1, config, device="meta")
    step.batch = batch
    step.model.set_memory(*chunks)
    step.run()
    with LaunchCounter() as counter:
        step.run()
    return {
        "operations": counter.operations.total(),
        "copies": counter.copies,
        "chunks": chunks.text(),
        "most_frequent": dict(counter.operations.most_common(8)),
    }


def largest_chunks(config: ModelConfig, batch: GraphBatch, limit_gib: float) -> ChunkSettings:
    """All at once if activations fit the limit, else the largest chunks of pairs that do."""
    estimator = StepEstimator(config, {"C": 1, "H": 1})
    sizes = ((c, estimator.activation_bytes_of(batch, c)) for c in LARGEST_FIRST)
    return next((c for c, needed in sizes if needed <= limit_gib * 2**30), CONFIGURED)


def main() -> None:
    """All cases; the last line is one JSON object."""
    parser = command_line(__doc__, quick="12 and 16 atoms, 8 channels")
    parser.add_argument("--limit-gib", type=float, default=40.0, help="of activations")
    arguments = parser.parse_args()
    rows = {}
    for name, (config, batch, grow) in cases(arguments.quick).items():
        rows[name] = measure(config, batch, grow=grow, limit_gib=arguments.limit_gib)
        print(
            f"{name:42s} {rows[name]['operations']:7,d} operations,"
            f" {rows[name]['copies']:5,d} copies; {rows[name]['chunks']}"
        )
    report("launches", rows=rows)


if __name__ == "__main__":
    main()
