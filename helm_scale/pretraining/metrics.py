"""metrics.jsonl, one JSON object per step, and the same numbers for TensorBoard.

A file that has become large is renamed to metrics-00012000.jsonl, after its last step, and a new
one begun. `metrics*.jsonl`, sorted by name, are all lines of a run.
"""

import io
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from helm_scale.pretraining.appended_file import AppendedFile

_log = logging.getLogger(__name__)
NAME, PARTS = "metrics.jsonl", "metrics-*.jsonl"
LARGE = 64 << 20  # bytes from which on a file is renamed and a new one begun
_BLOCK = 1 << 16  # bytes read at a time, from the end


class MetricsFile:
    """The lines of a run; a full disk costs none of them while the run lasts.

    Args:
        run: folder.
        done: steps of the checkpoint that the run resumes from; later lines are dropped, so that
            each step occurs once.
    """

    def __init__(self, run: Path, done: int) -> None:
        self._run, self._file = run, AppendedFile(run / NAME)
        try:
            keep_steps(run, done)
        except OSError as error:
            _log.error("%s: lines after step %d could not be dropped: %s", run / NAME, done, error)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append the line of a step."""
        self._file.append((json.dumps(line) + "\n").encode())
        if self._file.size >= LARGE:
            self._begin_another(int(line["step"]))

    def flush(self) -> None:
        """Put everything on disk."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _begin_another(self, step: int) -> None:
        self._file.close()
        try:
            (self._run / NAME).rename(self._run / PARTS.replace("*", f"{step:08d}"))
        except OSError as error:  # then it grows on
            _log.error("%s: could not be renamed: %s", self._run / NAME, error)


def keep_steps(run: Path, done: int) -> None:
    """Drop the lines of steps after `done`, and a line that a kill has torn.

    The files are read from their ends, so that it takes no longer for a long run.
    """
    path = run / NAME
    while True:
        end = _end_of(path, done) if path.is_file() else 0
        if path.is_file() and path.stat().st_size > end:
            os.truncate(path, end)
        older = sorted(run.glob(PARTS))
        if end or not older or int(older[-1].stem.removeprefix("metrics-")) <= done:
            return
        older[-1].rename(path)  # its last lines are to go


def _end_of(path: Path, done: int) -> int:
    """Bytes of the lines up to step `done`."""
    with path.open("rb") as file:
        for end, line in _lines_from_the_end(file):
            try:
                if line.endswith(b"\n") and json.loads(line)["step"] <= done:
                    return end
            except ValueError:  # torn
                continue
    return 0


def _lines_from_the_end(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The place where a line ends, and the line, the last one first."""
    position = end = file.seek(0, os.SEEK_END)
    tail = b""
    while position:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        lines = (file.read(size) + tail).splitlines(keepends=True)
        # The first one may begin in the block before.
        tail = lines.pop(0) if position else b""
        for line in reversed(lines):
            yield end, line
            end -= len(line)


class Board:
    """An event file of TensorBoard, which a full disk cannot stop.

    The writers of torch and TensorBoard end with the first error; so the records, which are
    TensorBoard's own, go into an AppendedFile.

    Args:
        folder: of the event files.
        first: first step that is to come; TensorBoard hides points of this and later steps that a
            killed run has left.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboard.compat.proto import event_pb2  # seconds, which rank 0 alone pays

        self._events, now = event_pb2, time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = AppendedFile(folder / name)
        self._write(wall_time=now, step=first, file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(wall_time=now, step=first, session_log=start)

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append points of curves, by name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items()]
        self._write(wall_time=time.time(), step=step, summary=Summary(value=values))

    def flush(self) -> None:
        """Put everything on disk."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, **fields: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(self._events.Event(**fields).SerializeToString())
        self._file.append(record.getvalue())
