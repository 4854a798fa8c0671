"""Last words of a command: one line for the screen, and for torchrun, which reads a file.

Of errors that nobody meant for the user the traceback is kept in a file.
"""

import hashlib
import json
import logging
import os
import platform
import re
import shlex
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent
# The last place of a traceback that multiprocessing hands over as text: file and line of source
LAST_PLACE = re.compile(r'.*^  File "(?P<file>[^"]*)".*?\n    (?P<line>[^\n]*)', re.S | re.M)

log = logging.getLogger(__name__)


def is_meant_for_users(error: BaseException) -> bool:
    """Whether a `raise` of our own raised an error, here or in a process that was started.

    What int(), numpy, torch or json raise names no file, frame or key.
    """
    cause = error.__cause__
    if cause is not None and type(cause).__name__ == "_RemoteTraceback":
        place = LAST_PLACE.match(str(cause))
        file, line = (place["file"], place["line"]) if place else ("", "")
    else:
        frames = traceback.extract_tb(error.__traceback__)
        file, line = (frames[-1].filename, frames[-1].line or "") if frames else ("", "")
    return Path(file).is_relative_to(PACKAGE) and line.lstrip().startswith("raise")


def keep(error: BaseException, arguments: Sequence[str]) -> str:
    """Write the traceback into a new file of the current folder, or of that for temporary files.

    Args:
        arguments: of the command line.
    Returns:
        One line: the command, the error, the place in our code, and the path of the file.
    """
    system = f"Python {platform.python_version()}, {platform.platform()}"
    text = "".join(traceback.format_exception(error))
    path = _write(f"{shlex.join(['helm-scale', *arguments])}\n{system}\n\n{text}")
    said = " ".join(str(error).split()) or "no message"
    return (
        f"{' '.join(['helm-scale', *arguments[:1]])}: {type(error).__name__}: {said}"
        f" ({_place(error)}); unforeseen: the traceback is in {path}"
    )


def tell_launcher(message: str) -> bool:
    """Write last words where torchrun looks for them, so that its summary holds them.

    Returns:
        whether another rank of this node has said the same in this life; false without torchrun.
    """
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # .../attempt_0/RANK/error.json
    if not report:
        return False
    said = Path(report).parents[1] / f"said-{hashlib.sha256(message.encode()).hexdigest()[:16]}"
    try:
        # The summary shows the second one
        shown = {"py_callstack": message, "timestamp": str(int(time.time()))}
        record = {"message": {"message": message, "extraInfo": shown}}
        Path(report).write_text(json.dumps(record), encoding="utf-8")
        said.touch(exist_ok=False)
    except FileExistsError:
        return True
    except OSError as problem:  # a full disk: the screen remains
        log.warning("%s: %s", report, problem)
    return False


def _place(error: BaseException) -> str:
    """The innermost line of our code that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    if not ours:
        return "outside helm_scale"
    name = Path(ours[-1].filename).relative_to(PACKAGE.parent)
    return f"{name}, line {ours[-1].lineno}"


def _write(text: str) -> str:
    """Path of a new file with this text; where none can be written, the text is logged."""
    prefix = time.strftime("helm-scale-%Y%m%d-%H%M%S-")
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            # a name of its own: several ranks may fail at once
            with tempfile.NamedTemporaryFile(
                "w", dir=folder, prefix=prefix, suffix=".log", delete=False, encoding="utf-8"
            ) as file:
                file.write(text)
            return file.name
        except OSError as problem:
            log.warning("%s: %s", folder, problem)
    log.error(text)
    return "the lines above"
