"""The node trunk beside fairchem-core's eSCN-MD backbone.

Measured are the seconds of a forward and backward pass, and its peak memory. Both at lmax = mmax =
6, 128 channels, 3 layers, 12 Angstrom, spectral feed-forward, float32, on one synthetic molecule.
Times in turn in one process; every peak from a process of its own, above the state after a step on
3 atoms (gradients are held then, too), large blocks through mmap. Needs an environment with
fairchem-core beside this package's dependencies.

    python benchmarks/trunk.py [--quick] [--atoms 40] [--threads 1]
"""

import argparse
import importlib.metadata
import statistics
import time
from collections.abc import Callable

import torch
from memory import LIVE, peak_mb, resident_mb
from report import command_line, in_fresh_process, report
from synthetic import model_config, molecule

from helm_scale.data.graphs.collate import collate
from helm_scale.model.trunk import Trunk

OURS = {"helm_scale": ("none", 1), "helm_scale, messages recomputed": ("messages", 256)}
THEIRS = "fairchem eSCN-MD"
LINE = "{:36s} {million_parameters:6.1f} M parameters {seconds:8.3f} s {peak_mb:8.0f} MB"


def our_pass(
    quick: bool, recompute: str, chunk: int
) -> tuple[int, Callable[[int], Callable[[], object]]]:
    """Parameters, and a pass for a number of atoms."""
    config = model_config("omol_csh_58k", quick)
    torch.manual_seed(0)
    trunk = Trunk(config)
    trunk.set_memory(recompute, chunk)

    def prepare(atoms: int) -> Callable[[], object]:
        batch = collate([molecule(atoms)], config)

        def run() -> None:
            trunk.zero_grad()
            trunk(batch.geometry).square().sum().backward()

        return run

    return sum(p.numel() for p in trunk.parameters()), prepare


def their_pass(quick: bool) -> tuple[int, Callable[[int], Callable[[], object]]]:
    """The same with fairchem's backbone."""
    from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
    from fairchem.core.models.uma.escn_md import eSCNMDBackbone

    config = model_config("omol_csh_58k", quick)
    torch.manual_seed(0)
    backbone = eSCNMDBackbone(
        max_num_elements=100,
        sphere_channels=config.channels,
        lmax=config.lmax,
        mmax=config.mmax,
        num_layers=config.num_layers,
        hidden_channels=config.hidden_channels,
        edge_channels=config.edge_channels,
        num_distance_basis=config.radial_functions,
        cutoff=config.trunk_cutoff,
        ff_type="spectral",
        norm_type="rms_norm_sh",
        act_type="gate",
        otf_graph=False,
        direct_forces=False,
        regress_forces=False,
        use_dataset_embedding=False,
    )

    def prepare(atoms: int) -> Callable[[], object]:
        made = molecule(atoms)
        positions = torch.as_tensor(made.positions, dtype=torch.float32)
        near = (torch.cdist(positions, positions) < config.trunk_cutoff) & ~torch.eye(
            atoms, dtype=torch.bool
        )
        edges = near.nonzero().T.contiguous()
        zero, count = torch.zeros(atoms, dtype=torch.long), edges.shape[1]
        data = AtomicData(
            pos=positions,
            atomic_numbers=torch.as_tensor(made.atomic_numbers).long(),
            cell=torch.eye(3)[None] * 100,
            pbc=torch.zeros(1, 3, dtype=torch.bool),
            natoms=torch.tensor([atoms]),
            edge_index=edges,
            cell_offsets=torch.zeros(count, 3),
            nedges=torch.tensor([count]),
            charge=torch.tensor([0]),
            spin=torch.tensor([1]),
            fixed=zero,
            tags=zero,
        )
        batch = atomicdata_list_to_batch([data])

        def run() -> None:
            backbone.zero_grad()
            backbone(batch)["node_embedding"].square().sum().backward()

        return run

    return sum(p.numel() for p in backbone.parameters()), prepare


def prepare_pass(name: str, quick: bool) -> tuple[int, Callable[[int], Callable[[], object]]]:
    """Parameters and passes of a variant by name."""
    return their_pass(quick) if name == THEIRS else our_pass(quick, *OURS[name])


def peak(name: str, atoms: int, quick: bool) -> float:
    """Peak of one pass above the state before it, MB; gradients are held before as well."""
    _, prepare = prepare_pass(name, quick)
    prepare(3)()
    run = prepare(atoms)
    before = resident_mb()
    run()
    return peak_mb() - before


def in_turn(passes: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of every pass."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds + 1):  # the first round warms up
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def fairchem_version() -> str | None:
    """Version of fairchem-core, or None where it is not installed."""
    try:
        return importlib.metadata.version("fairchem-core")
    except importlib.metadata.PackageNotFoundError:
        print("fairchem-core is not installed here: only this package is measured")
        return None


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, quick="8 atoms, 8 channels, one round")
    parser.add_argument("--atoms", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", metavar="VARIANT", help="its peak memory, in this process")
    return parser.parse_args()


def main() -> None:
    """All variants; the last line is one JSON object."""
    arguments = parse()
    quick, threads = arguments.quick, arguments.threads
    torch.set_num_threads(threads)
    atoms, rounds = (8, 1) if quick else (arguments.atoms, arguments.rounds)
    if arguments.peak:
        print(peak(arguments.peak, atoms, quick))
        return
    version = fairchem_version()
    variants = [*OURS, *([THEIRS] if version else [])]
    sizes, passes = {}, {}
    for name in variants:
        sizes[name], prepare = prepare_pass(name, quick)
        passes[name] = prepare(atoms)
    seconds = in_turn(passes, rounds)
    rows = {}
    for name in variants:
        flags = [f"--peak={name}", f"--atoms={atoms}", *["--quick"] * quick]
        rows[name] = {
            "million_parameters": sizes[name] / 1e6,
            "seconds": seconds[name],
            "peak_mb": in_fresh_process(__file__, *flags, environment=LIVE),
        }
        print(LINE.format(name, **rows[name]), flush=True)
    report("trunk", atoms=atoms, threads=threads, fairchem_core=version, rows=rows)


if __name__ == "__main__":
    main()
