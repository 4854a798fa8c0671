"""Three nodes, of which one is killed and two go on, as often as is asked for.

python -m tests.faults.lost_node --times 10
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

from tests.faults import nodes, runs
from tests.pretraining import launching


def lose_one_of_three(data: Path, unbroken: Path, folder: Path) -> str:
    """Start three nodes, kill the last one in mid-run, and hold what the others do to the run that
    nothing happened to.

    Returns:
        what all nodes said.
    Raises:
        AssertionError: the survivors hang, fail, blame another rank, or see other samples.
    """
    run = folder / "run"
    flags = launching.flags(data, run, **runs.SETTINGS, execution__engine="fsdp2")
    three = nodes.Nodes("2:3", 3, flags=flags, logs=folder / "logs")
    three.wait_for_step(run, 4)
    three.kill(2)
    codes = three.finish()
    said = three.said()
    assert codes[:2] == [0, 0], f"exit codes {codes}, None for a node that hung:\n{said}"
    assert {line["ranks"] for line in launching.lines(run)} == {3, 2}
    assert re.search(r"rank 2 \(host .* does not answer", said), said
    blamed = set(re.findall(r"(rank \d) \(host [^)]*\) does not answer", said))
    assert blamed == {"rank 2"}, f"blamed: {blamed}"
    runs.assert_same_within_round_off(run, unbroken)
    return said


def main() -> None:
    """Run the trials; the last line says how many succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    times, resumed = parser.parse_args().times, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, unbroken = launching.write_dataset(folder / "data"), folder / "unbroken"
        launching.trained(data, unbroken, **runs.SETTINGS)
        for trial in range(1, times + 1):
            started = time.monotonic()
            try:
                lose_one_of_three(data, unbroken, folder / f"trial-{trial}")
                resumed, verdict = resumed + 1, "resumed"
            except AssertionError as error:
                verdict = f"FAILED: {error}"
            print(f"trial {trial}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{resumed} of {times} resumed")
    raise SystemExit(resumed < times)


if __name__ == "__main__":
    main()
