"""Saves beside training: copies the state, writes it in a thread, commits once all have written.

Every public method is called by all ranks at the same step. A disk that is full or cannot be
written costs a checkpoint and a loud line, not the run; what was committed before stays.
"""

import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from helm_scale.config import PretrainConfig, dump
from helm_scale.optim.average import WeightAverage
from helm_scale.parallel import collectives, snapshot
from helm_scale.parallel.engine import Engine
from helm_scale.pretraining import checkpoint

_log = logging.getLogger(__name__)


class Saver:
    """Writes the checkpoints of a run, every number once.

    model.safetensors holds the averaged weights where there are such, else the weights.

    Args:
        record: what model.json says beside the weights.
    """

    def __init__(
        self,
        config: PretrainConfig,
        engine: Engine,
        average: WeightAverage | None,
        record: Mapping[str, object],
    ) -> None:
        self._config, self._engine, self._average, self._record = config, engine, average, record
        self._run, self._thread = Path(config.out), threading.Thread()
        self._folder: Path | None = None
        self._sums: dict[str, str] = {}
        self._commit: Callable[[], None] = lambda: None  # set by start, called by seal
        self._error = ""
        self.saved_step, self.failure = -1, ""

    @property
    def pending(self) -> bool:
        """Whether a checkpoint is not sealed yet."""
        return self._folder is not None

    @property
    def written(self) -> bool:
        """Whether this rank has a checkpoint written that is not sealed yet."""
        return self._folder is not None and not self._thread.is_alive()

    def start(self, step: int, validation_loss: float | None) -> None:
        """Copy the state of a step and begin to write it; waits for the checkpoint before."""
        self.finish()
        try:
            self._folder = collectives.from_rank_zero(
                self._engine.rank, lambda: checkpoint.begin(self._run, step)
            )
        except OSError as error:
            self._fail(step, [f"{error}"])
            return
        # Both are copies in the memory of the CPU: training goes on while they are written.
        state = self._engine.capture(with_weights=self._average is not None)
        # The state holds the weights that train only if model.safetensors holds their average.
        with self._average.applied() if self._average else nullcontext():
            weights = self._engine.full_state()
        folder, self.saved_step, self._error, self._sums = self._folder, step, "", {}
        # `purge` never deletes the last checkpoint with finite weights.
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())

        def commit() -> None:
            checkpoint.commit(
                folder, finite=finite, hashes=self._sums, validation_loss=validation_loss
            )
            checkpoint.purge(self._run, self._config.execution.keep_checkpoints)

        self._commit = commit
        # Threads write and hash; collectives stay in the main thread, whose order all ranks share.
        self._run_thread(lambda: self._write(folder, state, weights))
        if not self._config.execution.background_save:
            self.finish()

    def seal(self) -> None:
        """Let rank 0 commit what all ranks have written, in its thread.

        If a rank could not write, the folder is dropped.
        """
        self._thread.join()
        folder, self._folder = self._folder, None
        assert folder is not None
        results = collectives.gather((self._error, self._sums))
        failures = [f"rank {rank}: {error}" for rank, (error, _) in enumerate(results) if error]
        if failures:
            self._fail(self.saved_step, failures)
            if self._engine.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
            return
        self._sums = {name: digest for _, sums in results for name, digest in sums.items()}
        self.failure = ""
        if self._engine.rank == 0:
            self._run_thread(self._commit)

    def finish(self) -> None:
        """Wait until the checkpoint that is under way, if any, is committed."""
        if self._folder is not None:
            self.seal()
        if self._thread.ident:  # it was started
            self._thread.join()
        error = collectives.from_rank_zero(self._engine.rank, lambda: self._error)
        self._error = ""
        if error:
            self._fail(self.saved_step, [error])

    def _write(self, folder: Path, state: snapshot.Snapshot, weights: Mapping[str, Tensor]) -> None:
        sums = {f"state/{name}": digest for name, digest in state.write(folder / "state").items()}
        if self._engine.rank == 0:
            sums["model.safetensors"] = snapshot.write_tensors(
                folder / "model.safetensors", weights, {}
            )
            (folder / "model.json").write_text(json.dumps(self._record, indent=1) + "\n")
            (folder / "config.yaml").write_text(dump(self._config))
        self._sums = sums

    def _run_thread(self, work: Callable[[], object]) -> None:
        def run() -> None:  # an exception would end with the thread, unheard
            try:
                work()
            except OSError as error:
                self._error = str(error)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def _fail(self, step: int, errors: list[str]) -> None:
        last = [folder.name for folder in checkpoint.committed(self._run)]
        self.failure = (
            f"{self._run}: the checkpoint of step {step} could not be written: {'; '.join(errors)}."
            f" The last one is {last[-1] if last else 'none'}; make room or name another disk"
        )
        _log.error(self.failure)
