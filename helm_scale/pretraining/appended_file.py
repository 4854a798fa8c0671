"""Appends records to a file so that a full disk neither tears a record nor ends the program."""

import logging
import os
from collections import deque
from pathlib import Path

_log = logging.getLogger(__name__)
WAITING = 10_000  # records that wait for room, at most; then the oldest are given up


class AppendedFile:
    """Appends records, each whole or not at all.

    While the disk is full, or the folder cannot be written, records wait in memory. This is logged
    once, and once more when all have been written.

    Args:
        path: of the file, which is made with the first record.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._waiting = path, deque[bytes](maxlen=WAITING)
        self._descriptor, self._end, self._failing = -1, 0, False

    @property
    def size(self) -> int:
        """Bytes of whole records in the file."""
        return self._end

    def append(self, record: bytes) -> None:
        """Append a record, after those that wait."""
        self._waiting.append(record)
        self._write(to_disk=False)

    def flush(self) -> None:
        """Append what waits, and flush the file to the disk."""
        self._write(to_disk=True)

    def close(self) -> None:
        """Flush, and close the file; the next record opens it again."""
        self.flush()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, *, to_disk: bool) -> None:
        try:
            while self._waiting:
                self._write_whole(self._waiting[0])
                self._waiting.popleft()
            if to_disk and self._descriptor >= 0:
                os.fsync(self._descriptor)
        except OSError as error:
            if not self._failing:
                _log.error(
                    "%s: could not be written: %s; training goes on, and the last %d records wait"
                    " for room", self._path, error, WAITING,
                )  # fmt: skip
            self._failing = True
        else:
            if self._failing:
                _log.warning("%s: is written again", self._path)
            self._failing = False

    def _write_whole(self, record: bytes) -> None:
        if self._descriptor < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            self._end = os.lseek(self._descriptor, 0, os.SEEK_END)
        done = 0
        try:
            while done < len(record):  # a disk that is nearly full takes a part
                done += os.pwrite(self._descriptor, record[done:], self._end + done)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(record)
