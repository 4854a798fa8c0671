"""Runs the training loop: step, check, report, validate, save; ranks stop together and resume.

Every call that involves other ranks (step, evaluate, save, vote) is made by all ranks at the same
step. Step n is the n-th optimiser step, from 1; its samples are step n-1 of the sampler.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helm_scale.config import PretrainConfig
from helm_scale.data.loading.sampler import Sampler
from helm_scale.files import write_atomically
from helm_scale.optim.average import WeightAverage
from helm_scale.optim.schedule import cosine_schedule
from helm_scale.parallel import collectives
from helm_scale.parallel.engine import BatchMemoryError, Engine, StepResult
from helm_scale.parallel.watchdog import Watchdog
from helm_scale.pretraining import checkpoint, guard
from helm_scale.pretraining.memory.chunks import configured, next_to_try
from helm_scale.pretraining.monitor import Monitor, SilentMonitor, in_microhartree, peak_memory_mb
from helm_scale.pretraining.replay import FailureDump
from helm_scale.pretraining.saver import Saver
from helm_scale.types import BlockBatch

_log = logging.getLogger(__name__)
REQUEUE = "REQUEUE"  # file in the run folder: stopped on request, to be started again


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What a training run consists of.

    Attributes:
        config: settings; config.out is the folder.
        engine: holds the model. watchdog: tells which rank is to blame.
        sampler: order of the samples. keys: names of all samples of the dataset, by index.
        batches: (first, last) -> micro-batches of this rank for the sampler's steps first to
            last - 1.
        validation: makes this rank's validation batches.
        record: what model.json says beside the weights. settings: config.yaml of the run.
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
    settings: str
    resume_from: Path | None

    def keys_of(self, step: int) -> list[str]:
        """Names of the samples of a step."""
        return [str(self.keys[index]) for index in self.sampler.samples_of(step - 1)]


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        text: one line for the user. requeue: whether the run is to be started again.
    """

    text: str
    requeue: bool = False


def train(run: TrainingRun) -> RunOutcome:
    """Train to the last step, from a checkpoint if there is one.

    Raises:
        FloatingPointError: more steps than execution.skipped_steps had a loss or gradient not
            finite, a rank's hardware cannot be trusted, equal ranks have different weights, or
            weights that are to be saved are not finite.
        ValueError: no checkpoint can be loaded. OSError: the last one could not be written.
        MemoryError: a micro-batch does not fit; names it, its size, the chunks and what to try.
    """
    config, steps, decay = run.config, run.config.training.steps, run.config.training.ema_decay
    average = WeightAverage(run.engine, decay) if decay else None
    done, guards = _resume(run, average)
    if done >= steps:  # the same line, run again by a scheduler
        if run.engine.rank == 0:
            Path(config.out, REQUEUE).unlink(missing_ok=True)
        return RunOutcome(
            f"{config.out}: finished already ({done} of {steps} steps);"
            " raise training.steps, with --allow_config_change, or name another --out"
        )
    with (
        _open_monitor(run, done) as monitor,
        guard.StopRequest(config.execution.wall_clock_seconds).listening() as stop,
    ):
        trainer = _Trainer(run, average, monitor, stop)
        trainer.recall(guards)
        return trainer.steps(done)


@dataclass(frozen=True)
class _Votes:
    """What all ranks say after a step; the same on every rank.

    Attributes:
        stopping: rank -> code of its request to stop.
        seconds: of every rank for reading and computing.
    """

    stopping: dict[int, int]
    seconds: list[float]

    def pace(self, details: bool) -> dict[str, Any]:
        """Seconds before ranks wait for the slowest one, which is named."""
        slowest = max(self.seconds)
        by_rank = {"seconds_by_rank": [round(value, 4) for value in self.seconds]}
        return {
            "ranks": len(self.seconds),
            "seconds_mean": round(sum(self.seconds) / len(self.seconds), 4),
            "seconds_max": round(slowest, 4),
            "slowest_rank": self.seconds.index(slowest),
            **(by_rank if details else {}),
        }


class _Trainer:
    """The state of a run between its steps."""

    def __init__(
        self,
        run: TrainingRun,
        average: WeightAverage | None,
        monitor: SilentMonitor,
        stop: guard.StopRequest,
    ) -> None:
        self._run, self._average, self._monitor, self._stop = run, average, monitor, stop
        self._saver = Saver(
            run.config.execution,
            run.engine,
            folder=Path(run.config.out),
            average=average,
            record=run.record,
            settings=run.settings,
        )
        self._spikes = guard.SpikeMonitor(run.config.execution.spike_score)
        self._dump = FailureDump(
            Path(run.config.out),
            run.engine,
            record=run.record,
            data=run.config.data.path,
            keep=run.config.execution.keep_replays,
        )
        self._skipped = 0

    def recall(self, guards: Mapping[str, Any]) -> None:
        """Go on with the losses seen and the steps skipped before a resumption."""
        self._spikes.recall(guards.get("losses", ()))
        self._skipped = int(guards.get("skipped", 0))

    def steps(self, done: int) -> RunOutcome:
        """Take the steps after `done`."""
        run, last = self._run, self._run.config.training.steps
        first_loss, started = 0.0, time.perf_counter()
        run.watchdog.beat(done + 1, "reading")
        for step, micro_batches in enumerate(run.batches(done, last), start=done + 1):
            reading = time.perf_counter() - started
            result, line = self._step(step, micro_batches, started)
            first_loss = result.loss if step == done + 1 else first_loss
            validation = self._validate(step)
            # After every step: a signal may reach one rank only, or all at different steps.
            votes = self._vote(reading + result.seconds)
            # before the save: a resumed run does not take again the steps of its checkpoint
            details = run.config.execution.metrics_details
            self._monitor.write(line | validation | votes.pace(details))
            if votes.stopping or self._save_is_due(step):
                self._save(step, validation.get("validation_loss"))
            if votes.stopping and step < last:
                return self._requeue(step, votes.stopping)
            started = time.perf_counter()
            run.watchdog.shorten()  # only the first step compiles and warms up
            run.watchdog.beat(step + 1, "reading")
        self._finish()
        return RunOutcome(
            f"{run.config.out}: finished, {last} steps; loss {first_loss:.2e} at step {done + 1},"
            f" {result.loss:.2e} at step {last}"
        )

    def _step(
        self, step: int, micro_batches: list[BlockBatch], started: float
    ) -> tuple[StepResult, dict[str, Any]]:
        """Take one step and check it; its result, and its line of metrics."""
        run, training = self._run, self._run.config.training
        rate = cosine_schedule(step - 1, steps=training.steps, warmup_steps=training.warmup_steps)
        run.watchdog.beat(step, "computing", [key for batch in micro_batches for key in batch.keys])
        try:
            result = run.engine.step(
                micro_batches, rate, self._spikes.is_spike, self._dump.capture_weights
            )
        except BatchMemoryError as error:
            raise MemoryError(_out_of_memory(run, step, error)) from error
        if result.first_loss is not None or not result.stepped:
            self._judge(step, result)
        if result.stepped:  # a loss that is not finite tells nothing of the spread
            self._spikes.add(result.loss)
            if self._average:
                self._average.update()
        self._compare_replicas(step)
        return result, self._line(step, result, rate, time.perf_counter() - started)

    def _line(self, step: int, result: StepResult, rate: float, seconds: float) -> dict[str, Any]:
        """What metrics.jsonl says of a step."""
        run = self._run
        return {
            "step": step,
            "epoch": run.sampler.epoch_of(step - 1),
            "loss": result.loss,
            **in_microhartree(result.metrics),
            "grad_norm": result.grad_norm,
            "learning_rate": run.config.training.learning_rate * rate,
            "molecules_per_second": result.molecules / seconds,
            "pairs_per_second": result.pairs / seconds,
            "peak_memory_mb": peak_memory_mb(),
            **({"keys": run.keys_of(step)} if run.config.execution.metrics_details else {}),
            **({} if result.stepped else {"skipped": True}),
        }

    def _judge(self, step: int, result: StepResult) -> None:
        """Dump a doubtful step; stop where hardware is to blame or too many steps were skipped."""
        # the k-th key of a step is that of its k-th sample; a key may come twice
        keys, numbers = self._run.keys_of(step), self._run.sampler.samples_of(step - 1)
        samples, suspects = list(zip(keys, numbers, strict=True)), result.suspects or keys
        replay = self._dump.write(step, result, samples=samples, suspects=suspects)
        where = f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}"
        if result.unsteady:
            ranks = ", ".join(map(str, result.unsteady))
            raise FloatingPointError(
                f"{where}, but {result.first_loss} before, from the same weights and samples:"
                f" rank {ranks} computes wrongly. Take its node out; rerunning resumes from the"
                f" last checkpoint. {replay}"
            )
        if not result.stepped:
            self._skip(
                f"{where}: not finite, so no rank took the step."
                f" Samples: {', '.join(suspects)}. {replay}"
            )
            return
        _log.warning(
            "%s: a spike, and the same when computed again, so it is in the data: %s. %s",
            where, ", ".join(suspects), replay,
        )  # fmt: skip

    def _skip(self, text: str) -> None:
        """Count a step that no rank took; stop once too many were skipped."""
        self._skipped += 1
        allowed = self._run.config.execution.skipped_steps
        if self._skipped > allowed:
            self._finish()
            raise FloatingPointError(
                f"{text}. execution.skipped_steps = {allowed} are used up: look at their labels,"
                " or lower training.learning_rate; rerunning resumes from the last checkpoint"
            )
        _log.error("%s. Skipped %d of %d", text, self._skipped, allowed)

    def _compare_replicas(self, step: int) -> None:
        """Stop if ranks that must hold equal weights do not, before such weights are saved."""
        execution = self._run.config.execution
        if step % execution.compare_every and step % execution.checkpoint_every:
            return
        ranks = self._run.engine.divergent_ranks()
        if ranks:
            raise FloatingPointError(
                f"step {step}: the weights of rank {', '.join(map(str, ranks))} are not those of"
                " its replicas: a bit has flipped in its memory. Take its node out; rerunning"
                " resumes from the last checkpoint"
            )

    def _validate(self, step: int) -> dict[str, float]:
        """Validation metrics, where they are due."""
        run = self._run
        if step != run.config.training.steps and step % run.config.execution.validate_every:
            return {}

        def batches() -> Iterator[BlockBatch]:
            for batch in run.validation():
                run.watchdog.beat(step, "validating", batch.keys)
                yield batch

        # The average is what the checkpoint offers as the model, so it is what is validated.
        with self._average.applied() if self._average else nullcontext():
            return in_microhartree(run.engine.evaluate(batches()), prefix="validation_")

    def _vote(self, seconds: float) -> _Votes:
        """Tell all ranks whether this one is to stop, and hear the others.

        In one collective: a rank that stopped alone would leave the others waiting.
        """
        votes = collectives.gather_numbers([float(self._stop.code), seconds])
        return _Votes(
            stopping={rank: int(vote[0]) for rank, vote in enumerate(votes) if vote[0]},
            seconds=[vote[1] for vote in votes],
        )

    def _save_is_due(self, step: int) -> bool:
        config = self._run.config
        return step == config.training.steps or step % config.execution.checkpoint_every == 0

    def _save(self, step: int, validation_loss: float | None) -> None:
        self._run.watchdog.beat(step, "saving")
        self._monitor.flush()  # lines must be on disk before the checkpoint that has them behind it
        guards = {"losses": self._spikes.losses, "skipped": self._skipped}
        self._saver.start(step, validation_loss, guards)

    def _finish(self) -> None:
        """Wait for the last checkpoint; raises OSError if it is not there."""
        self._saver.finish()
        if self._saver.failure:
            raise OSError(self._saver.failure)

    def _requeue(self, step: int, stopping: dict[int, int]) -> RunOutcome:
        """All ranks have saved this step and leave."""
        self._finish()
        folder, steps = Path(self._run.config.out), self._run.config.training.steps
        why = ", ".join(f"{guard.reason(code)} on rank {rank}" for rank, code in stopping.items())
        if self._run.engine.rank == 0:
            _write_if_possible(folder / REQUEUE, f"step {step}: {why}\n")
        text = f"{folder}: stopped at step {step} of {steps} ({why}); the same line resumes"
        return RunOutcome(text, requeue=True)


def _resume(run: TrainingRun, average: WeightAverage | None) -> tuple[int, dict[str, Any]]:
    """Load the newest checkpoint that can be loaded, if there are any.

    Returns:
        the steps that it has behind it, and what the guards remembered.
    """
    rank, folder = run.engine.rank, run.resume_from
    problems: list[str] = []
    while folder is not None:
        said = collectives.gather(_load(run, folder, average))
        problems = [f"rank {number}: {problem}" for number, problem in enumerate(said) if problem]
        if not problems:
            _log.info("%s: resumed from %s", run.config.out, folder.name)
            return checkpoint.step_of(folder), collectives.from_rank_zero(
                rank, functools.partial(checkpoint.guards, folder)
            )
        text = "; ".join(problems)
        _log.error("%s: cannot be loaded (%s); falling back to the one before", folder, text)
        older = functools.partial(checkpoint.latest, run.config.out, before=folder)
        folder = collectives.from_rank_zero(rank, older)
    if problems:  # weights are half loaded, so that nothing can start from them
        raise ValueError(f"{run.config.out}: no checkpoint can be loaded: {'; '.join(problems)}")
    return 0, {}


def _load(run: TrainingRun, folder: Path, average: WeightAverage | None) -> str:
    """Load a checkpoint on this rank; what is wrong with it, or nothing."""
    try:
        run.engine.load(folder, average.shards if average else {})
    except (ValueError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    names = run.engine.not_finite() + (average.not_finite() if average else [])
    return f"not finite: {', '.join(names[:3])}" if names else ""


def _open_monitor(run: TrainingRun, done: int) -> SilentMonitor:
    """Rank 0's monitor, with config.yaml beside it; a silent one elsewhere."""
    config, folder = run.config, Path(run.config.out)
    if run.engine.rank:
        return SilentMonitor()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REQUEUE).unlink(missing_ok=True)  # this is the start that was asked for
    _write_if_possible(folder / "config.yaml", run.settings)
    return Monitor(folder, done, config.training.steps, config.execution.progress)


def _write_if_possible(path: Path, text: str) -> None:
    """Write a file without which training can go on."""
    try:
        write_atomically(path, text)
    except OSError as error:
        _log.error("%s: could not be written: %s; training goes on", path, error)


def _out_of_memory(run: TrainingRun, step: int, error: BatchMemoryError) -> str:
    """What did not fit, and what to try."""
    execution, batch = run.config.execution, error.batch
    keys = ", ".join(f"'{key}'" for key in batch.keys)
    return (
        f"step {step}: rank {run.engine.rank} has no memory left at {keys}:"
        f" {len(batch.atomic_numbers)} atoms, {batch.edge_index.shape[1]} message edges,"
        f" {batch.pair_index.shape[1]} pairs, with {configured(execution).text()}."
        f" Try {next_to_try(execution)}, or have it chosen by --execution.memory_limit_gib;"
        f" rerunning resumes from the last checkpoint ({error})"
    )
