"""One molecule over several ranks: equal numbers, even shares, bytes that do not grow with pairs.

Every number of ranks runs in processes of its own (gloo, one thread each). Gradients are summed
over ranks and compared with those of one process.

    python benchmarks/sharing.py [--quick] [--atoms 80] [--ranks 1 2 4]
"""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from report import command_line, report
from synthetic import Step, model_config
from torch import Tensor

from helm_scale.config import ExecutionConfig
from helm_scale.parallel import pair_parallel, startup
from helm_scale.parallel.processes import Processes


class CountedSum:
    """Sums over the ranks of a molecule, and counts the bytes of a forward and backward pass."""

    def __init__(self, processes: Processes) -> None:
        self.sum, self.sent = pair_parallel.sum_over_pair_ranks(processes), 0

    def __call__(self, part: Tensor) -> Tensor:
        """The sum."""
        self.sent += 2 * part.numel() * part.element_size()
        return self.sum(part)


def prepared(atoms: int, quick: bool, processes: Processes, counted: CountedSum) -> Step:
    """A step with this rank's part of the molecule."""
    step = Step(atoms, model_config("omol_csh_58k", quick))
    step.model.set_memory(pair_chunk=512, recompute="messages", message_chunk=512)
    step.model.set_pair_shard(processes.pair_rank, processes.pair_world_size, all_reduce=counted)
    step.batch = replace(step.batch, pair_world_size=processes.pair_world_size)
    return step


def even_share(pairs: int, processes: Processes) -> int:
    """Pairs of this rank."""
    rank, ranks = processes.pair_rank, processes.pair_world_size
    return pairs * (rank + 1) // ranks - pairs * rank // ranks


def work(atoms: int, quick: bool, ranks: int, out: Path) -> None:
    """One rank: a step with its part of the molecule; rank 0 writes the figures."""
    execution = ExecutionConfig(engine="ddp", device="cpu", threads=1, pair_ranks=ranks)
    with startup.process_group(execution) as processes:
        counted = CountedSum(processes)
        step = prepared(atoms, quick, processes, counted)
        step.objective(step.model, step.batch)  # warms up
        counted.sent = 0
        start = time.perf_counter()
        step.model.zero_grad()
        sums = step.objective(step.model, step.batch)
        sums.total.backward()
        seconds = time.perf_counter() - start
        total = torch.stack([sums.total.detach().double(), sums.count])
        gradients = [p.grad for p in step.model.parameters() if p.grad is not None]
        gradient = torch.cat([part.flatten().double() for part in gradients])
        dist.all_reduce(total)
        dist.all_reduce(gradient)
        pairs = step.batch.pair_index.shape[1]
        shares: list[int] = [0] * ranks
        dist.all_gather_object(shares, even_share(pairs, processes))
        if processes.rank == 0:
            figures = {
                "ranks": ranks,
                "pairs": pairs,
                "shares": shares,
                "loss": float(step.objective.loss(*total)),
                "gradient_norm": float(gradient.norm()),
                "seconds": seconds,
                "bytes_sent": counted.sent,
            }
            out.write_text(json.dumps(figures))


def measure(atoms: int, quick: bool, ranks: int) -> dict[str, float]:
    """Start the ranks and read what rank 0 wrote."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        worker = [__file__, f"--worker={out}", f"--atoms={atoms}", f"--ranks={ranks}"]
        command = [sys.executable, *torchrun, *worker, *["--quick"] * quick]
        subprocess.run(command, check=True)
        figures: dict[str, float] = json.loads(out.read_text())
        return figures


def main() -> None:
    """All numbers of ranks; the last line is one JSON object."""
    parser = command_line(__doc__, quick="12 atoms, 8 channels")
    parser.add_argument("--atoms", type=int, default=80)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--worker", type=Path, help="be one rank and write to this file")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.atoms, arguments.quick, arguments.ranks[0], arguments.worker)
        return
    atoms = 12 if arguments.quick else arguments.atoms
    rows = [measure(atoms, arguments.quick, ranks) for ranks in arguments.ranks]
    for row in rows:
        print(
            "{ranks} ranks: loss {loss:.9e}, |gradient| {gradient_norm:.9e}, pairs {shares}, "
            "{bytes_sent} B sent".format(**row)
        )
    report("sharing", atoms=atoms, rows=rows)


if __name__ == "__main__":
    main()
