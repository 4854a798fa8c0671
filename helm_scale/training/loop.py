"""The training loop: step, tell, validate, save; and pick up where the last checkpoint left off.

Every call that involves other ranks (step, evaluate, save) is made by all ranks at the same step. Step n is the n-th
optimiser step, from 1; its samples are step n-1 of the plan.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helm_scale.batch import GraphBatch
from helm_scale.config import PretrainConfig, dump
from helm_scale.data.plan import StepPlan
from helm_scale.model.weights import save_weights
from helm_scale.parallel import collectives
from helm_scale.parallel.engine import Engine, StepResult
from helm_scale.training import checkpoint
from helm_scale.training.monitor import Monitor, SilentMonitor, in_microhartree, peak_memory_mb
from helm_scale.training.optim import WeightAverage, learning_rate_factor

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a training run consists of.

    Attributes:
        config: settings; config.out is the folder. engine: holds the model. plan: order of the samples.
        keys: names of all samples of the dataset, by index.
        batches: (first, last) -> micro-batches of this rank for the plan's steps first to last-1.
        validation: makes this rank's validation batches. record: what model.json says beside the weights.
        resume_from: checkpoint to go on from, the same on every rank, or None.
    """

    config: PretrainConfig
    engine: Engine
    plan: StepPlan
    keys: Sequence[str]
    batches: Callable[[int, int], Iterator[list[GraphBatch]]]
    validation: Callable[[], Iterable[GraphBatch]]
    record: Mapping[str, Any]
    resume_from: Path | None


def train(job: Job) -> str:
    """Train to the last step, from a checkpoint if there is one.

    Returns:
        how it ended, one line.
    Raises:
        FloatingPointError: loss or gradient was not finite; no rank has taken that step.
    """
    config, engine = job.config, job.engine
    average = WeightAverage(engine.parameters(), config.training.ema_decay) if config.training.ema_decay else None
    done = _resume(job, average)
    steps = config.training.steps
    if done >= steps:
        return f"{config.out}: finished already ({done} of {steps} steps); raise training.steps or name another --out"
    monitor = _open_monitor(job, done)
    losses, started = [], time.perf_counter()
    for step, micro_batches in enumerate(job.batches(done, steps), start=done + 1):
        rate = learning_rate_factor(step - 1, steps, config.training.warmup_steps)
        result = engine.step(micro_batches, rate)
        _check_finite(job, step, result)
        losses.append(result.loss)
        if average:
            average.update()
        line = _line(job, step, result, rate, time.perf_counter() - started)
        last = step == steps
        if last or step % config.execution.validate_every == 0:
            line |= _validate(job, average)
        monitor.write(line)
        if last or step % config.execution.checkpoint_every == 0:
            monitor.flush()
            _save(job, step, average)
        started = time.perf_counter()
    monitor.close()
    return f"{config.out}: finished, {steps} steps; loss {losses[0]:.2e} at step {done + 1}, {losses[-1]:.2e} at step {steps}"


def _resume(job: Job, average: WeightAverage | None) -> int:
    """Load the checkpoint, if any; returns the steps it has behind it."""
    if job.resume_from is None:
        return 0
    job.engine.load(job.resume_from / "state", _extra(average))
    _log.info("%s: resumed from %s", job.config.out, job.resume_from.name)
    return checkpoint.step_of(job.resume_from)


def _save(job: Job, step: int, average: WeightAverage | None) -> None:
    """Write and commit a checkpoint; its model.safetensors holds the averaged weights where there is an average."""
    run, first = Path(job.config.out), job.engine.rank == 0
    folder = collectives.from_rank_zero(job.engine.rank, lambda: checkpoint.begin(run, step))
    job.engine.save(folder / "state", _extra(average))
    with average.applied() if average else nullcontext():
        weights = job.engine.full_state()
    if first:
        save_weights(weights, folder / "model.safetensors")
        (folder / "model.json").write_text(json.dumps(job.record, indent=1) + "\n")
        (folder / "config.yaml").write_text(dump(job.config))
    collectives.barrier()
    if first:
        checkpoint.commit(folder, finite=all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()))
        checkpoint.purge(run, job.config.execution.keep_checkpoints)
    collectives.barrier()


def _validate(job: Job, average: WeightAverage | None) -> dict[str, float]:
    with average.applied() if average else nullcontext():
        return in_microhartree(job.engine.evaluate(job.validation()), prefix="validation_")


def _extra(average: WeightAverage | None) -> dict[str, Tensor]:
    return {f"average.{name}": tensor for name, tensor in average.tensors.items()} if average else {}


def _open_monitor(job: Job, done: int) -> SilentMonitor:
    """Rank 0's monitor, with config.yaml beside it; a silent one elsewhere."""
    config, run = job.config, Path(job.config.out)
    if job.engine.rank:
        return SilentMonitor()
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(dump(config))
    return Monitor(run, done, config.training.steps, config.execution.progress)


def _check_finite(job: Job, step: int, result: StepResult) -> None:
    if not result.stepped:
        samples = result.suspects or tuple(_keys(job, step))
        raise FloatingPointError(
            f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}: not finite, so no rank took the step."
            f" Samples: {', '.join(samples)}. Look at their labels, or lower training.learning_rate; rerunning resumes before this step"
        )


def _keys(job: Job, step: int) -> list[str]:
    return [str(job.keys[index]) for index in job.plan.samples_of(step - 1)]


def _line(job: Job, step: int, result: StepResult, rate: float, seconds: float) -> dict[str, Any]:
    """One step's record."""
    return {
        "step": step,
        "epoch": job.plan.epoch_of(step - 1),
        "loss": result.loss,
        **in_microhartree(result.metrics),
        "grad_norm": result.grad_norm,
        "learning_rate": job.config.training.learning_rate * rate,
        "molecules_per_second": result.molecules / seconds,
        "pairs_per_second": result.pairs / seconds,
        "peak_memory_mb": peak_memory_mb(),
        "keys": _keys(job, step),
    }
