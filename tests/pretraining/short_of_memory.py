"""launch/pretrain.py in a process that, when a step begins, may map little more memory.

python short_of_memory.py FLAGS
"""

import resource
import runpy
import sys
from pathlib import Path
from typing import Any

from helm_scale.parallel.engine import Engine

LEFT = 20 * 2**20  # bytes
_step = Engine.step


def _limited(engine: Any, *rest: Any) -> Any:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + LEFT, resource.RLIM_INFINITY)
    )
    return _step(engine, *rest)


if __name__ == "__main__":
    Engine.step = _limited  # type: ignore[method-assign]
    sys.argv = ["launch/pretrain.py", *sys.argv[1:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
