"""One molecule over several ranks: equal numbers, even shares, and bytes that do not grow with the
pairs.

Every number of ranks runs in processes of its own (gloo, one thread each). Gradients are summed
over ranks and compared with those of one process.

    python benchmarks/sharing.py [--quick] [--atoms 80] [--ranks 1 2 4]
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from synthetic import Step, model_config
from torch import Tensor

from helm_scale.config import ExecutionConfig
from helm_scale.parallel import pair_parallel, startup


def work(atoms: int, quick: bool, ranks: int, out: Path) -> None:
    """One rank: a step with its part of the molecule; rank 0 writes what was found."""
    execution = ExecutionConfig(engine="ddp", device="cpu", threads=1, pair_ranks=ranks)
    with startup.process_group(execution) as processes:
        sent = [0]
        over_parts = pair_parallel.sum_over_pair_ranks(processes)

        def counted(part: Tensor) -> Tensor:
            sent[0] += 2 * part.numel() * part.element_size()  # forward and backward
            return over_parts(part)

        step = Step(atoms, model_config("omol_csh_58k", quick))
        step.model.set_memory(pair_chunk=512, recompute="messages", message_chunk=512)
        step.model.set_pair_shard(
            processes.pair_rank, processes.pair_world_size, all_reduce=counted
        )
        step.batch = replace(step.batch, pair_world_size=processes.pair_world_size)
        sums = step.objective(step.model, step.batch)
        sent[0] = 0
        start = time.perf_counter()
        step.model.zero_grad()
        sums = step.objective(step.model, step.batch)
        sums.total.backward()
        seconds = time.perf_counter() - start
        total = torch.stack([sums.total.detach().double(), sums.count])
        dist.all_reduce(total)
        gradients = torch.cat(
            [p.grad.flatten().double() for p in step.model.parameters() if p.grad is not None]
        )
        dist.all_reduce(gradients)
        pairs = step.batch.pair_index.shape[1]
        own = (
            pairs * (processes.pair_rank + 1) // processes.pair_world_size
            - pairs * processes.pair_rank // processes.pair_world_size
        )
        shares: list[int] = [0] * ranks
        dist.all_gather_object(shares, own)
        if processes.rank == 0:
            norm = float(gradients.norm())
            found = {
                "loss": float(step.objective.loss(*total)),
                "gradient_norm": norm,
                "seconds": seconds,
                "bytes_sent": sent[0],
            }
            out.write_text(json.dumps({"ranks": ranks, "pairs": pairs, "shares": shares, **found}))


def measure(atoms: int, quick: bool, ranks: int) -> dict[str, float]:
    """Start the ranks and read what rank 0 wrote."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(ranks),
        ]
        task = [
            __file__,
            "--worker",
            str(out),
            "--atoms",
            str(atoms),
            "--ranks",
            str(ranks),
            *["--quick"] * quick,
        ]
        subprocess.run(launch + task, check=True)
        found: dict[str, float] = json.loads(out.read_text())
        return found


def main() -> None:
    """All numbers of ranks; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="12 atoms, 8 channels")
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
    print(json.dumps({"benchmark": "sharing", "atoms": atoms, "rows": rows}))


if __name__ == "__main__":
    main()
