"""How evenly the ranks of a step are loaded, against batches of a fixed count.

Evenness is the mean over the maximum of the costs of the ranks.

Sizes are drawn like those of OMol: log-normal around 50 atoms between 10 and 150, H to O in organic
proportion; costs are those that a manifest lists (data_shards/README.md) in def2-TZVPD. Simulated,
not run: a step lasts as long as its slowest rank, so mean/max is the share of the time in which the
ranks work. Beside it stands the limit of any packing of the same step: a rank can do no less than
its largest molecule. Where that limit is low, ranks share molecules (execution.pair_ranks): a bin
belongs to all of them.

    python benchmarks/balance.py [--quick] [--molecules 200000] [--steps 50]
"""

import time

import numpy as np
from report import command_line, report

from helm_scale.basis.shells import nao
from helm_scale.data.format.shards import TYPICAL_BLOCK
from helm_scale.data.loading.epochs import ShuffledEpochs
from helm_scale.data.loading.sampler import Sampler

LINE = (
    "{ranks:4d} ranks, {molecules_per_rank:2d} molecules each, {pair_ranks} share: packed "
    "{packed:.3f} (worst {packed_worst_step:.3f},"
    " limit {limit:.3f}), naive {naive:.3f}; {milliseconds_per_step:.1f} ms to plan a step"
)
SETTINGS = ((4, 1), (4, 2), (8, 1), (16, 1))  # molecules per rank, ranks that share a molecule


def costs_like_omol(molecules: int) -> np.ndarray:
    """Costs of molecules of 10 to 150 atoms."""
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.normal(np.log(50), 0.5, size=4 * molecules))
    atoms = np.rint(drawn[(drawn >= 10) & (drawn <= 150)][:molecules]).astype(np.int64)
    hydrogens = rng.binomial(atoms, 0.5)
    light, heavy = nao("def2-tzvpd", 1), nao("def2-tzvpd", 6)
    size = hydrogens * light + (atoms - hydrogens) * heavy
    squares = hydrogens * light**2 + (atoms - hydrogens) * heavy**2
    return atoms * (atoms + 1) / 2 + (size.astype(np.float64) ** 2 + squares) / 2 / TYPICAL_BLOCK


def balance(
    costs: np.ndarray, *, ranks: int, per_rank: int, sharing: int, steps: int
) -> dict[str, float]:
    """Mean over maximum of the ranks' costs, mean and worst over the steps, packed and naive.

    Args:
        per_rank: molecules of a step over ranks. sharing: ranks that share the molecules of a bin.
    """
    bins = ranks // sharing
    sampler = Sampler(
        [ShuffledEpochs("omol", np.arange(len(costs)), seed=0)],
        costs,
        batch_molecules=ranks * per_rank,
        micro_batches=bins,
    )
    packed, naive, limit, seconds = [], [], [], 0.0
    for step in range(steps):
        start = time.perf_counter()
        members_of_bins = sampler.micro_batches_of(step)
        seconds += time.perf_counter() - start
        loads = np.array([costs[members].sum() for members in members_of_bins])
        fixed = costs[sampler.samples_of(step)].reshape(bins, -1).sum(axis=1)
        packed.append(loads.mean() / loads.max())
        naive.append(fixed.mean() / fixed.max())
        limit.append(min(1.0, loads.mean() / costs[sampler.samples_of(step)].max()))
    return {
        "ranks": ranks,
        "molecules_per_rank": per_rank,
        "pair_ranks": sharing,
        "packed": float(np.mean(packed)),
        "packed_worst_step": float(np.min(packed)),
        "limit": float(np.mean(limit)),
        "naive": float(np.mean(naive)),
        "naive_worst_step": float(np.min(naive)),
        "milliseconds_per_step": 1e3 * seconds / steps,
    }


def main() -> None:
    """Simulate all numbers of ranks; the last line is one JSON object."""
    parser = command_line(__doc__, quick="20,000 molecules, 5 steps")
    parser.add_argument("--molecules", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    molecules, steps = (20_000, 5) if arguments.quick else (arguments.molecules, arguments.steps)
    costs = costs_like_omol(molecules)
    rows = [
        balance(costs, ranks=ranks, per_rank=per_rank, sharing=sharing, steps=steps)
        for ranks in (8, 64, 512)
        for per_rank, sharing in SETTINGS
    ]
    for row in rows:
        print(LINE.format(**row))
    report("balance", molecules=molecules, steps=steps, rows=rows)


if __name__ == "__main__":
    main()
