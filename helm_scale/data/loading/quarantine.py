"""Counts and lists damaged samples, and stops a run when they are more than a given share."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)
JUDGED_FROM = 1000  # samples: before so many were read, the share is taken of this number


@dataclass(frozen=True)
class SkippedSample:
    """A sample that could not be read: its number, and the message with shard and key."""

    sample: int
    reason: str


class Quarantine:
    """Counts what one rank has skipped.

    Args:
        share: largest share of the samples read that may be skipped; 0 tolerates none.
        file: one JSON object per skipped sample is appended to it, once per run of the program.
    """

    def __init__(self, share: float, file: Path) -> None:
        self._share, self._file = share, file
        self._read = self._skipped = 0
        self._listed: set[int] = set()

    def note(self, read: int, skipped: Sequence[SkippedSample]) -> None:
        """Count a batch.

        Args:
            read: samples asked for. skipped: those of them that were left out.

        Raises:
            ValueError: more than the share has been skipped; names the latest.
        """
        self._read += read
        self._skipped += len(skipped)
        for sample in skipped:
            if sample.sample not in self._listed:  # an epoch later it is skipped again
                self._list(sample)
        if self._skipped > self._share * max(self._read, JUDGED_FROM):
            latest = skipped[-1].reason if skipped else self._file
            raise ValueError(
                f"{latest}: {self._skipped} of {self._read} samples read were skipped, more than"
                f" data.quarantine_share = {self._share:g}; they are listed in {self._file}:"
                " get their shards anew"
            )

    def _list(self, sample: SkippedSample) -> None:
        """Log a sample and append it to the file."""
        self._listed.add(sample.sample)
        _log.warning("skipped %s", sample.reason)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                file.write(json.dumps(vars(sample)) + "\n")
        except OSError as error:  # a full disk: the log has the sample all the same
            _log.error("%s: could not be written: %s", self._file, error)
