"""Measures training steps on a GPU: seconds, kernels, idle share, memory, optimisers, DDP.

Made-up molecules at the published, lean and low-data settings, in float32, TF32 and bfloat16, also
replayed as one CUDA graph, which shows what launches cost. Whatever fails is reported as text, and
all figures so far are written after each.

    python benchmarks/gpu.py [--quick] [--seconds 100] [--out gpu.json]
"""

import gc
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from report import command_line, report
from synthetic import Step, labelled, model_config, molecule
from torch.autograd import DeviceType

from helm_scale.config import (
    ExecutionConfig,
    LowDataConfig,
    ModelConfig,
    TrainingConfig,
    load,
)
from helm_scale.data.graphs.collate import collate
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.model.helm import Helm
from helm_scale.optim.build import hidden_names, make_optimizers
from helm_scale.parallel.build import build_engine
from helm_scale.parallel.engine import Engine
from helm_scale.parallel.flat_shards import from_replicated
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.startup import process_group
from helm_scale.types import GraphBatch

PRECISIONS = ("float32", "tf32", "bfloat16")
OPTIMIZERS = {
    "adamw": {"optimizer": "adamw"},
    "muon, float32": {"optimizer": "muon", "muon_dtype": "float32"},
    "muon, bfloat16": {"optimizer": "muon", "muon_dtype": "bfloat16"},
    "soap": {"optimizer": "soap"},
}
STEPS = 10  # of an optimiser: a period of SOAP
SHORTEST = 4.0  # seconds without which nothing more is begun
Row = dict[str, Any]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def low_data(quick: bool) -> ModelConfig:
    """Model of configs/low_data.yaml."""
    config = load(LowDataConfig, ["--config", "configs/low_data.yaml"]).pretrain.model
    narrow = {"channels": 8, "hidden_channels": 8, "edge_channels": 8, "radial_functions": 16}
    return config.model_copy(update=narrow) if quick else config


def cases(quick: bool) -> dict[str, tuple[ModelConfig, list[int]]]:
    """Name -> model, and atoms of every molecule of the batch."""
    published, lean = (model_config(name, quick) for name in ("omol_csh_58k", "omol_csh_58k_lean"))
    small, large, many = (4, 6, 2) if quick else (40, 150, 16)
    return {
        f"low data, {many} of 10 atoms": (low_data(quick), [10] * many),
        f"low data, {8 * many} of 10 atoms": (low_data(quick), [10] * (8 * many)),
        f"lean, {small} atoms": (lean, [small]),
        f"published, {small} atoms": (published, [small]),
        f"lean, {many} of 10 atoms": (lean, [10] * many),
        f"published, {large} atoms": (published, [large]),
        f"lean, {large} atoms": (lean, [large]),
    }


def batch_of(atoms: Sequence[int], config: ModelConfig) -> GraphBatch:
    """Made-up molecules, with targets in the dtype of the model as shards give them."""
    batch = collate([molecule(count, seed) for seed, count in enumerate(atoms)], config)
    return labelled(batch, config)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Compute products so: all of them, heads included."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=name == "bfloat16"):
        yield
    torch.set_float32_matmul_precision(before)


def wait() -> None:
    """Until the device has done all that it was asked for."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median time of a call, the device's work included."""
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        function()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def timed(function: Callable[[], object], warm_up: int = 2, repeats: int = 5) -> float:
    """The same after calls that do not count."""
    for _ in range(warm_up):
        function()
    return seconds(function, repeats)


def step_of(config: ModelConfig, atoms: Sequence[int]) -> Step:
    """A model and a batch on the device, all pairs and edges at once."""
    step = Step(1, config, device=DEVICE.type)
    step.batch = batch_of(atoms, config).to(DEVICE)
    step.model.set_memory(0, "none", 1)
    return step


def step_row(step: Step, name: str, quick: bool) -> Row:
    """Time and peak memory of forward and backward pass in one precision."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with precision(name):
        once = timed(step.run, *((1, 1) if quick else (2, 5)))
    row: Row = {"step_s": once, "molecules_per_s": len(step.batch.keys) / once}
    if DEVICE.type == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def profile_row(step: Step, wall: float) -> Row:
    """Kernels of a step, their time and names, calls that wait, and the share of idle time.

    Args:
        wall: seconds of a step that is not profiled, of which kernels take a part.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if DEVICE.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step.run()
        wait()
    events = profiler.events()
    kernels = [e for e in events if e.device_type == DeviceType.CUDA]
    busy = sum(e.time_range.elapsed_us() for e in kernels) / 1e6
    spent: Counter[str] = Counter()
    for event in kernels:
        spent[event.name[:90]] += event.time_range.elapsed_us()
    calls = Counter(e.name for e in events if e.name.startswith("cuda"))
    operations = Counter(e.name for e in events if e.name.startswith("aten::"))
    return {
        "kernels": len(kernels),
        "kernel_s": busy,
        "idle_share": 1 - busy / wall,
        "most_time_us": dict(spent.most_common(12)),
        "calls": dict(calls.most_common(8)),
        "operations": dict(operations.most_common(12)),
    }


def graph_row(config: ModelConfig, atoms: Sequence[int], name: str) -> Row:
    """Seconds of a step that is replayed as one CUDA graph: no launches by the host."""
    step, stream = step_of(config, atoms), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with precision(name):
        with torch.cuda.stream(stream):
            for _ in range(2):
                step.run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step.run()
    return {"step_s": timed(graph.replay)}


def optimizer_rows(config: ModelConfig, quick: bool) -> Row:
    """Mean seconds of an optimiser's step, and of its slowest one among ten."""
    model = Helm(config).to(DEVICE)
    held = {name: from_replicated(p) for name, p in model.named_parameters()}
    rows: Row = {"million_parameters": sum(p.numel() for p in model.parameters()) / 1e6}
    for name, settings in OPTIMIZERS.items():
        made = make_optimizers(held, TrainingConfig(**settings), hidden_names(model))
        for shard in held.values():
            shard.local.grad = torch.randn_like(shard.local.detach()) * 1e-3

        def step(made: Sequence[torch.optim.Optimizer] = made) -> None:
            for optimizer in made:
                optimizer.step()

        first = seconds(step, 1)
        times = [seconds(step, 1) for _ in range(1 if quick else STEPS)]
        rows[name] = {"first_s": first, "mean_s": statistics.mean(times), "slowest_s": max(times)}
    return rows


def engine_of(engine: str, processes: Processes, config: ModelConfig, optimizer: str) -> Engine:
    """What a training run takes its steps with."""
    model = Helm(config)
    model.set_memory(0, "none", 1)
    training = TrainingConfig(**OPTIMIZERS[optimizer])
    hidden = hidden_names(model)
    return build_engine(
        ExecutionConfig(engine=engine, pair_ranks=1),
        processes,
        model=model,
        objective=HamiltonianObjective(config.basis, config.parity, model.reference_onsite),
        make_optimizers=lambda shards: make_optimizers(shards, training, hidden),
        clip_norm=0.0,
        empty=collate([], config),
    )


def engine_row(engine: str, config: ModelConfig, atoms: Sequence[int], quick: bool) -> Row:
    """Seconds of a whole step of training from a batch on the host, by optimiser."""
    batch, row = batch_of(atoms, config), dict[str, Any]()
    with process_group(ExecutionConfig(engine=engine, pair_ranks=1)) as processes:
        for optimizer in ("adamw", "muon, bfloat16", "soap"):
            made = engine_of(engine, processes, config, optimizer)
            repeats = (1, 1) if quick else (3, 11)
            row[optimizer] = timed(partial(made.step, [batch], 1e-3), *repeats)
    return row


def largest(config: ModelConfig, sizes: Sequence[int], left: Callable[[], float]) -> Row:
    """The largest molecule whose step fits, all pairs and edges at once; stops when time is up."""
    row: Row = {}
    for atoms in sizes:
        if left() < SHORTEST:
            break
        try:
            row[str(atoms)] = step_row(step_of(config, [atoms]), "tf32", quick=True)
        except torch.OutOfMemoryError:
            row[str(atoms)] = "does not fit"
            break
        forget()
    return row


def forget() -> None:
    """Give the device's memory back."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


class Figures:
    """Rows by name, written to a file after every measurement; no measurement stops the others."""

    def __init__(self, out: str, budget: float) -> None:
        self.rows: Row = {}
        self._out, self._end = out, time.monotonic() + budget

    def left(self) -> float:
        """Seconds of the budget."""
        return self._end - time.monotonic()

    def take(self, name: str, measure: Callable[[], Row]) -> Row:
        """Measure if there is time; an error becomes the row's text."""
        start = time.monotonic()
        if self.left() < SHORTEST:
            row: Row = {"skipped": "no time left"}
        else:
            try:
                row = measure()
            except Exception as error:
                row = {"failed": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        row["measured_in_s"] = round(time.monotonic() - start, 2)
        self.rows[name] = row
        print(f"{name}: {json.dumps(row)[:160]}", flush=True)
        if self._out:
            Path(self._out).write_text(json.dumps({"device": device_name(), "rows": self.rows}))
        forget()
        return row


def device_name() -> str:
    """Name of the card."""
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"


def measure_case(figures: Figures, name: str, case: tuple[ModelConfig, list[int]], q: bool) -> None:
    """All precisions of a model and a batch, and the profile of one."""
    made: list[Step] = []

    def ready() -> Row:
        made.append(step_of(*case))
        return {"seconds": timed(made[0].run, 0, 1)}  # tables of constants are made here

    figures.take(f"{name}: first step", ready)
    if not made:
        return
    for kind in PRECISIONS:
        row = figures.take(f"{name}: {kind}", partial(step_row, made[0], kind, q))
        if kind == "float32" and "step_s" in row:
            figures.take(f"{name}: profile", partial(profile_row, made[0], row["step_s"]))


def main() -> None:
    """The most telling cases first; the last line is one JSON object."""
    parser = command_line(__doc__, quick="4 atoms, 8 channels, one repeat, CPU, too")
    parser.add_argument("--seconds", type=float, default=100.0, help="begin nothing after")
    parser.add_argument("--out", default="", help="JSON file, written after every measurement")
    arguments = parser.parse_args()
    quick, figures = arguments.quick, Figures(arguments.out, arguments.seconds)
    named = cases(quick)
    first, second, *others = list(named)[: 4 if quick else None]
    measure_case(figures, second, named[second], quick)
    for name in [first, others[0]]:
        measure_case(figures, name, named[name], quick)
        config, atoms = named[name]
        figures.take(f"{name}: optimisers", partial(optimizer_rows, config, quick))
        for engine in ("single", "ddp"):
            figures.take(
                f"{name}: engine {engine}",
                partial(engine_row, engine, config, atoms, quick),
            )
    for name in others[1:]:
        measure_case(figures, name, named[name], quick)
    for name in named if DEVICE.type == "cuda" else ():
        figures.take(f"{name}: graph, tf32", partial(graph_row, *named[name], "tf32"))
    published = others[1]
    figures.take(f"{published}: optimisers", lambda: optimizer_rows(named[published][0], quick))
    sizes = (5,) if quick else (250, 350, 450, 550, 700, 900)
    figures.take("published: largest", lambda: largest(named[published][0], sizes, figures.left))
    report("gpu", device=device_name(), rows=figures.rows)


if __name__ == "__main__":
    main()
