"""The node trunk beside fairchem-core's eSCN-MD backbone: seconds of a forward and backward pass,
and its peak memory.

Both at lmax = mmax = 6, 128 channels, 3 layers, 12 Angstrom, spectral feed-forward, float32, on one
synthetic molecule. Times in turn in one process; every peak from a process of its own, above the
state after a step on 3 atoms (gradients are held then, too), large blocks through mmap. Needs an
environment with fairchem-core beside this package's dependencies.

    python benchmarks/trunk.py [--quick] [--atoms 40] [--threads 1]
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from memory import LIVE, peak_mb, resident_mb
from synthetic import model_config, molecule

from helm_scale.data.graphs.collate import collate
from helm_scale.model.trunk import Trunk

OURS = {"helm_scale": ("none", 1), "helm_scale, messages recomputed": ("messages", 256)}
THEIRS = "fairchem eSCN-MD"


def our_pass(
    quick: bool, recompute: str, chunk: int
) -> tuple[int, Callable[[int], Callable[[], object]]]:
    """Parameters, and a pass for a number of atoms."""
    config = model_config("omol_csh_58k", quick)
    torch.manual_seed(0)
    trunk = Trunk(config)
    trunk.set_memory(recompute, chunk)

    def prepare(atoms: int) -> Callable[[], object]:
        b = collate([molecule(atoms)], config)

        def run() -> None:
            trunk.zero_grad()
            out = trunk(b.geometry)
            out.square().sum().backward()

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
        one = molecule(atoms)
        positions = torch.as_tensor(one.positions, dtype=torch.float32)
        near = (torch.cdist(positions, positions) < config.trunk_cutoff) & ~torch.eye(
            atoms, dtype=torch.bool
        )
        edges = near.nonzero().T.contiguous()
        zero, count = torch.zeros(atoms, dtype=torch.long), edges.shape[1]
        data = AtomicData(
            pos=positions,
            atomic_numbers=torch.as_tensor(one.atomic_numbers).long(),
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


def made(name: str, quick: bool) -> tuple[int, Callable[[int], Callable[[], object]]]:
    """A variant by name."""
    return their_pass(quick) if name == THEIRS else our_pass(quick, *OURS[name])


def peak(name: str, atoms: int, quick: bool) -> float:
    """Peak of one pass above the state before it, MB; gradients, held before as well, do not
    count."""
    _, prepare = made(name, quick)
    prepare(3)()
    run = prepare(atoms)
    before = resident_mb()
    run()
    return peak_mb() - before


def main() -> None:
    """All variants; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 atoms, 8 channels, one round")
    parser.add_argument("--atoms", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", metavar="VARIANT", help="its peak memory, in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    atoms, rounds = (8, 1) if arguments.quick else (arguments.atoms, arguments.rounds)
    if arguments.peak:
        print(peak(arguments.peak, atoms, arguments.quick))
        return
    try:
        version = importlib.metadata.version("fairchem-core")
    except importlib.metadata.PackageNotFoundError:
        version = None
        print("fairchem-core is not installed here: only this package is measured")
    variants = [*OURS, *([THEIRS] if version else [])]
    sizes, passes = {}, {}
    for name in variants:
        sizes[name], prepare = made(name, arguments.quick)
        passes[name] = prepare(atoms)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):  # the first round warms up
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    rows = {}
    for name in variants:
        command = [
            sys.executable,
            __file__,
            "--peak",
            name,
            "--atoms",
            str(atoms),
            *["--quick"] * arguments.quick,
        ]
        output = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, **LIVE}
        ).stdout
        rows[name] = {
            "million_parameters": sizes[name] / 1e6,
            "seconds": statistics.median(times[name][1:]),
            "peak_mb": float(output.splitlines()[-1]),
        }
        print(
            "{:36s} {million_parameters:6.1f} M parameters {seconds:8.3f} s {peak_mb:8.0f} MB".format(
                name, **rows[name]
            )
        )
    print(
        json.dumps(
            {
                "benchmark": "trunk",
                "atoms": atoms,
                "threads": arguments.threads,
                "fairchem_core": version,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
