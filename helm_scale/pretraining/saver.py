"""Saves beside training: copies the state; threads write it, and that of rank 0 commits it.

`start` and `finish` are called by all ranks at the same step. Whatever goes wrong with a
checkpoint, a full disk, no memory, a file that does not arrive, costs that checkpoint and a loud
line, not the run; what was committed before stays. Only weights that are not finite stop the run:
nothing is saved from then on.
"""

import json
import logging
import shutil
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from helm_scale.config import ExecutionConfig
from helm_scale.files import Written, write_synced
from helm_scale.optim.average import WeightAverage
from helm_scale.parallel import collectives, snapshot
from helm_scale.parallel.engine import Engine
from helm_scale.pretraining import checkpoint

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """What one rank writes of a checkpoint: its state and, on rank 0, weights and texts."""

    step: int
    folder: Path
    state: snapshot.Snapshot
    weights: Mapping[str, Tensor]
    texts: Mapping[str, str]
    validation_loss: float | None


class Saver:
    """Writes the checkpoints of a run, every number once.

    model.safetensors holds the averaged weights where there are such, else the weights.

    Args:
        folder: of the run.
        record: what model.json says beside the weights. settings: config.yaml.
    Attributes:
        failure: why the last checkpoint is not there; empty if it is.
    """

    def __init__(
        self,
        execution: ExecutionConfig,
        engine: Engine,
        *,
        folder: Path,
        average: WeightAverage | None,
        record: Mapping[str, object],
        settings: str,
    ) -> None:
        self._execution, self._engine, self._average = execution, engine, average
        self._run, self._reports = folder, engine.reports()
        self._texts = {
            "model.json": json.dumps(record, indent=1) + "\n",
            "config.yaml": settings,
        }
        self._thread, self.failure = threading.Thread(), ""

    @property
    def pending(self) -> bool:
        """Whether a checkpoint is under way."""
        return self._thread.is_alive()

    def start(
        self, step: int, validation_loss: float | None, guards: Mapping[str, object] | None = None
    ) -> None:
        """Copy the state of a step and begin to write it; waits for the checkpoint before.

        Args:
            guards: what the guards of training are to remember (guards.json).
        Raises:
            FloatingPointError: weights are not finite; names them. Nothing is saved.
        """
        self.finish()
        self._refuse_infinite(step)
        try:
            folder = collectives.from_rank_zero(
                self._engine.rank, lambda: checkpoint.begin(self._run, step)
            )
        except OSError as error:
            self._fail(step, str(error))
            return
        # Both are copies in the memory of the CPU: training goes on while they are written.
        state = self._engine.capture(with_weights=self._average is not None)
        # The state holds the weights that train only if model.safetensors holds their average.
        with self._average.applied() if self._average else nullcontext():
            weights = self._engine.full_state()
        copy = _Copy(
            step=step,
            folder=folder,
            state=state,
            weights=weights,
            texts=self._texts | {checkpoint.GUARDS: json.dumps(guards or {}) + "\n"},
            validation_loss=validation_loss,
        )
        self._thread = threading.Thread(target=self._save, args=(copy,))
        self._thread.start()
        if not self._execution.background_save:
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint that is under way, if any, is committed or given up."""
        if self._thread.ident:  # it was started
            self._thread.join()

    def _refuse_infinite(self, step: int) -> None:
        names = collectives.gather(self._engine.not_finite())
        if self._average:
            averages = collectives.gather(self._average.not_finite())
            names = [ours + theirs for ours, theirs in zip(names, averages, strict=True)]
        lines = [f"rank {r}: {', '.join(found[:3])}" for r, found in enumerate(names) if found]
        if lines:
            raise FloatingPointError(
                f"step {step}: weights are not finite, so nothing is saved: {'; '.join(lines)}."
                " Rerunning resumes from the last checkpoint, which is finite; lower"
                " training.learning_rate if it happens again"
            )

    def _save(self, copy: _Copy) -> None:
        """Write, report, and on rank 0 commit; what any rank meets is told to all."""
        name = f"save-{copy.step}"
        error, files = "", dict[str, Written]()
        try:
            files = self._write(copy)
        except Exception as problem:
            error = _text(problem)
        try:
            self._reports.send(name, [error, files])
            if self._engine.rank == 0:
                self._reports.decide(name, self._commit(copy, self._reports.collect(name)))
            failure = self._reports.decision(name)
        except Exception as problem:  # a rank, or the store that the ranks share, is gone
            failure = _text(problem)
        self.failure = ""
        if failure:
            self._fail(copy.step, failure)

    def _write(self, copy: _Copy) -> dict[str, Written]:
        """Write this rank's files; {path below the folder: hash and size}."""
        files = {
            f"state/{name}": written
            for name, written in copy.state.write(copy.folder / "state").items()
        }
        if self._engine.rank == 0:
            files["model.safetensors"] = snapshot.write_tensors(
                copy.folder / "model.safetensors", copy.weights, {}
            )
            for name, text in copy.texts.items():
                files[name] = write_synced(copy.folder / name, text)
        return files

    def _commit(self, copy: _Copy, reports: list[tuple[str, dict[str, Written]]]) -> str:
        """Make the folder a checkpoint if all ranks have written; else why not."""
        errors = [f"rank {rank}: {error}" for rank, (error, _) in enumerate(reports) if error]
        try:
            if not errors:
                files = {name: Written(*file) for _, by in reports for name, file in by.items()}
                checkpoint.expect(copy.folder, files)
                states = [name for name in files if name.startswith("state/")]
                files[f"state/{snapshot.INDEX}"] = snapshot.write_index(
                    copy.folder / "state", [Path(name).name for name in states]
                )
                checkpoint.commit(
                    copy.folder, files, finite=True, validation_loss=copy.validation_loss
                )
                checkpoint.purge(self._run, self._execution.keep_checkpoints)
        except Exception as problem:
            errors = [f"rank 0: {_text(problem)}"]
        if errors:
            shutil.rmtree(copy.folder, ignore_errors=True)
        return "; ".join(errors)

    def _fail(self, step: int, why: str) -> None:
        last = [folder.name for folder in checkpoint.committed(self._run)]
        self.failure = (
            f"{self._run}: the checkpoint of step {step} could not be written: {why}."
            f" The last one is {last[-1] if last else 'none'}; make room or name another disk"
        )
        _log.error(self.failure)


def _text(error: Exception) -> str:
    """What an error says; of errors of the system the message suffices."""
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
