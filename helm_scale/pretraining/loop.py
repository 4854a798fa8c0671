"""The training loop: step, judge, tell, validate, save; stop together; and pick up where the last
checkpoint left off.

Every call that involves other ranks (step, evaluate, save, vote) is made by all ranks at the same
step. Step n is the n-th optimiser step, from 1; its samples are step n-1 of the sampler.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helm_scale.config import PretrainConfig, dump
from helm_scale.data.loading.sampler import Sampler
from helm_scale.optim.optimizers import WeightAverage, learning_rate_factor
from helm_scale.parallel import collectives
from helm_scale.parallel.engine import BatchMemoryError, Engine, StepResult
from helm_scale.parallel.watchdog import Watchdog
from helm_scale.pretraining import checkpoint, guard
from helm_scale.pretraining.memory import plan
from helm_scale.pretraining.monitor import Monitor, SilentMonitor, in_microhartree, peak_memory_mb
from helm_scale.pretraining.replay import Evidence
from helm_scale.pretraining.saver import Saver
from helm_scale.types import BlockBatch

_log = logging.getLogger(__name__)
REQUEUE = "REQUEUE"  # file in the run folder: stopped on request, to be started again


@dataclass(frozen=True)
class Job:
    """What a training run consists of.

    Attributes:
        config: settings; config.out is the folder. engine: holds the model. watchdog: tells who is to
            blame.
        sampler: order of the samples. keys: names of all samples of the dataset, by index.
        batches: (first, last) -> micro-batches of this rank for the sampler's steps first to last-1.
        validation: makes this rank's validation batches. record: what model.json says beside the
            weights.
        resume_from: checkpoint to go on from, the same on every rank, or None.
    """

    config: PretrainConfig
    engine: Engine
    watchdog: Watchdog
    sampler: Sampler
    keys: Sequence[str]
    batches: Callable[[int, int], Iterator[list[BlockBatch]]]
    validation: Callable[[], Iterable[BlockBatch]]
    record: Mapping[str, Any]
    resume_from: Path | None


@dataclass(frozen=True)
class Ending:
    """How a run ended: one line for the user, and whether it is to be started again."""

    text: str
    requeue: bool = False


def train(job: Job) -> Ending:
    """Train to the last step, from a checkpoint if there is one.

    Raises:
        FloatingPointError: more steps than execution.skipped_steps had a loss or gradient not
            finite, a rank's hardware cannot be trusted, or equal ranks have different weights.
            OSError: the last checkpoint could not be written.
        MemoryError: a micro-batch does not fit; names it, its size, the chunks and what to try.
    """
    config = job.config
    average = (
        WeightAverage(job.engine, config.training.ema_decay) if config.training.ema_decay else None
    )
    done = _resume(job, average)
    if done >= config.training.steps:
        text = f"{config.out}: finished already ({done} of {config.training.steps} steps); raise training.steps, with --allow_config_change,"
        return Ending(f"{text} or name another --out")
    with (
        _open_monitor(job, done) as monitor,
        guard.StopRequest(config.execution.wall_clock_seconds).listening() as stop,
    ):
        return _Run(job, average, monitor, stop).steps(done)


class _Run:
    """The state of a run between its steps."""

    def __init__(
        self,
        job: Job,
        average: WeightAverage | None,
        monitor: SilentMonitor,
        stop: guard.StopRequest,
    ) -> None:
        self._job, self._average, self._monitor, self._stop = job, average, monitor, stop
        self._saver = Saver(job.config, job.engine, average, job.record)
        self._spikes = guard.SpikeMonitor(job.config.execution.spike_score)
        self._evidence = Evidence(
            Path(job.config.out), job.engine, job.record, job.config.data.path
        )
        self._skipped = 0

    def steps(self, done: int) -> Ending:
        """Take the steps after `done`."""
        job, steps, first_loss, started = (
            self._job,
            self._job.config.training.steps,
            0.0,
            time.perf_counter(),
        )
        job.watchdog.beat(done + 1, "reading")
        for step, micro_batches in enumerate(job.batches(done, steps), start=done + 1):
            reading = time.perf_counter() - started
            line, loss = self._step(step, micro_batches, started, reading)
            first_loss = loss if step == done + 1 else first_loss
            validation = self._validate(step)
            votes = collectives.gather_numbers(
                [float(self._stop.code), float(self._saver.written), line.pop("own")]
            )
            stopping = {rank: int(vote[0]) for rank, vote in enumerate(votes) if vote[0]}
            self._monitor.write(line | validation | _pace([vote[2] for vote in votes]))
            if self._saver.written and all(vote[1] for vote in votes):
                self._saver.seal()
            if stopping or step == steps or step % job.config.execution.checkpoint_every == 0:
                self._save(step, validation.get("validation_loss"))
            if stopping and step < steps:
                return self._requeue(step, stopping)
            started = time.perf_counter()
            job.watchdog.shorten()
            job.watchdog.beat(step + 1, "reading")
        self._finish()
        return Ending(
            f"{job.config.out}: finished, {steps} steps; loss {first_loss:.2e} at step {done + 1}, {loss:.2e} at step {steps}"
        )

    def _step(
        self, step: int, micro_batches: list[BlockBatch], started: float, reading: float
    ) -> tuple[dict[str, Any], float]:
        """One step and what the guards say of it; its line and loss."""
        job, keys = self._job, _keys(self._job, step)
        rate = learning_rate_factor(
            step - 1, job.config.training.steps, job.config.training.warmup_steps
        )
        job.watchdog.beat(step, "computing", [key for batch in micro_batches for key in batch.keys])
        try:
            result = job.engine.step(
                micro_batches, rate, self._spikes.is_spike, self._evidence.collect
            )
        except BatchMemoryError as error:
            raise MemoryError(_too_large(job, step, error)) from error
        if result.first_loss is not None or not result.stepped:
            self._judge(step, result, keys)
        if result.stepped:
            self._spikes.add(result.loss)
            if self._average:
                self._average.update()
        if (
            step % job.config.execution.compare_every == 0
            or step % job.config.execution.checkpoint_every == 0
        ):
            self._compare(step)
        line = _line(job, step, result, rate, time.perf_counter() - started)
        return line | {"keys": keys, "own": reading + result.seconds} | (
            {} if result.stepped else {"skipped": True}
        ), result.loss

    def _judge(self, step: int, result: StepResult, keys: list[str]) -> None:
        """Keep the evidence of a doubtful step; stop where hardware is to blame or too many steps
        were skipped."""
        samples = result.suspects or tuple(keys)
        indices = self._job.sampler.samples_of(step - 1)
        replay = self._evidence.keep(step, result, dict(zip(keys, indices, strict=True)), samples)
        where = f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}"
        if result.unsteady:
            ranks = ", ".join(map(str, result.unsteady))
            raise FloatingPointError(
                f"{where}, but {result.first_loss} before, from the same weights and samples: rank {ranks} computes wrongly."
                f" Take its node out; rerunning resumes from the last checkpoint. {replay}"
            )
        if result.stepped:
            _log.warning(
                "%s: a spike, and the same when computed again, so it is in the data: %s. %s",
                where,
                ", ".join(samples),
                replay,
            )
            return
        self._skipped += 1
        text = f"{where}: not finite, so no rank took the step. Samples: {', '.join(samples)}. {replay}"
        if self._skipped > self._job.config.execution.skipped_steps:
            self._finish()
            raise FloatingPointError(
                f"{text}. execution.skipped_steps = {self._job.config.execution.skipped_steps} are used up:"
                " look at their labels, or lower training.learning_rate; rerunning resumes from the last checkpoint"
            )
        _log.error(
            "%s. Skipped %d of %d", text, self._skipped, self._job.config.execution.skipped_steps
        )

    def _compare(self, step: int) -> None:
        """Stop if ranks that must hold equal weights do not, before such weights are saved."""
        odd = self._job.engine.divergent_ranks()
        if odd:
            raise FloatingPointError(
                f"step {step}: the weights of rank {', '.join(map(str, odd))} are not those of its replicas: a bit has flipped in its"
                " memory. Take its node out; rerunning resumes from the last checkpoint"
            )

    def _validate(self, step: int) -> dict[str, float]:
        """Validation metrics, where they are due."""
        if (
            step != self._job.config.training.steps
            and step % self._job.config.execution.validate_every
        ):
            return {}

        def batches() -> Iterator[BlockBatch]:
            for batch in self._job.validation():
                self._job.watchdog.beat(step, "validating", batch.keys)
                yield batch

        with self._average.applied() if self._average else nullcontext():
            return in_microhartree(self._job.engine.evaluate(batches()), prefix="validation_")

    def _save(self, step: int, validation_loss: float | None) -> None:
        self._job.watchdog.beat(step, "saving")
        self._monitor.flush()
        self._saver.start(step, validation_loss)

    def _finish(self) -> None:
        """Wait for the last checkpoint; raises OSError if it is not there."""
        self._saver.finish()
        if self._saver.failure:
            raise OSError(self._saver.failure)

    def _requeue(self, step: int, stopping: dict[int, int]) -> Ending:
        """All ranks have saved this step and leave."""
        self._finish()
        run, why = (
            Path(self._job.config.out),
            ", ".join(f"{guard.reason(code)} on rank {rank}" for rank, code in stopping.items()),
        )
        if self._job.engine.rank == 0:
            (run / REQUEUE).write_text(f"step {step}: {why}\n")
        text = f"{run}: stopped at step {step} of {self._job.config.training.steps} ({why}); the same line resumes"
        return Ending(text, requeue=True)


def _resume(job: Job, average: WeightAverage | None) -> int:
    """Load the checkpoint, if any; returns the steps it has behind it."""
    if job.resume_from is None:
        return 0
    job.engine.load(job.resume_from, average.shards if average else {})
    _log.info("%s: resumed from %s", job.config.out, job.resume_from.name)
    return checkpoint.step_of(job.resume_from)


def _open_monitor(job: Job, done: int) -> SilentMonitor:
    """Rank 0's monitor, with config.yaml beside it; a silent one elsewhere."""
    config, run = job.config, Path(job.config.out)
    if job.engine.rank:
        return SilentMonitor()
    run.mkdir(parents=True, exist_ok=True)
    (run / REQUEUE).unlink(missing_ok=True)
    (run / "config.yaml").write_text(dump(config))
    return Monitor(run, done, config.training.steps, config.execution.progress)


def _keys(job: Job, step: int) -> list[str]:
    return [str(job.keys[index]) for index in job.sampler.samples_of(step - 1)]


def _too_large(job: Job, step: int, error: BatchMemoryError) -> str:
    """What did not fit, and what to try."""
    execution, batch, keys = (
        job.config.execution,
        error.batch,
        ", ".join(f"'{key}'" for key in error.batch.keys),
    )
    return (
        f"step {step}: rank {job.engine.rank} has no memory left at {keys}: {len(batch.atomic_numbers)} atoms,"
        f" {batch.edge_index.shape[1]} message edges, {batch.pair_index.shape[1]} pairs, with pair_chunk {execution.pair_chunk},"
        f" recompute {execution.recompute}, message_chunk {execution.message_chunk}. Try {plan.next_to_try(execution)},"
        f" or have it chosen by --execution.memory_limit_gib; rerunning resumes from the last checkpoint ({error})"
    )


def _pace(seconds: list[float]) -> dict[str, Any]:
    """Seconds of every rank for reading and computing, before it waits for the others, and the
    slowest rank."""
    return {
        "seconds_by_rank": [round(value, 4) for value in seconds],
        "slowest_rank": seconds.index(max(seconds)),
    }


def _line(job: Job, step: int, result: StepResult, rate: float, seconds: float) -> dict[str, Any]:
    """One step's record."""
    return {
        "step": step,
        "epoch": job.sampler.epoch_of(step - 1),
        "loss": result.loss,
        **in_microhartree(result.metrics),
        "grad_norm": result.grad_norm,
        "learning_rate": job.config.training.learning_rate * rate,
        "molecules_per_second": result.molecules / seconds,
        "pairs_per_second": result.pairs / seconds,
        "peak_memory_mb": peak_memory_mb(),
    }
