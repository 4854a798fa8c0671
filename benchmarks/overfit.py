"""Eight molecules with s, p, d and f shells and an ECP element, learned by heart: labels, coupling,
head and optimiser agree.

Molecules come from data_shards/quickstart (PBE/def2-TZVPD); the whole Hamiltonian is learned,
without H0, by the same command that pretrains.

    python benchmarks/overfit.py [--quick]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from helm_scale import commands
from helm_scale.config import PretrainConfig, load
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, ShardWriter

KEYS = ("H2O", "NH3", "CH3OH", "SO2", "HCN", "PH3", "CH3Cl", "CH3I")


def write_eight(source: Path, out: Path) -> None:
    """Copy the eight molecules into a dataset of their own; training and validation split are the
    same molecules."""
    manifest = Manifest.load(source)
    reader = ShardReader(manifest)
    writer = ShardWriter(
        out,
        manifest.method,
        licence=manifest.licence,
        source=str(source),
        molecules_per_shard=len(KEYS),
    )
    place = {str(key): index for index, key in enumerate(manifest.key)}
    for key in KEYS:
        writer.write(reader.read(place[key]), "train")
    writer.close()


def main() -> None:
    """Train, and print the error of the last step; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10 steps")
    parser.add_argument(
        "--data", default="data_shards/quickstart", help="dataset with the eight molecules"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder) / "eight", Path(folder) / "run"
        write_eight(Path(arguments.data), data)
        overrides = [
            "--data.path",
            str(data),
            "--data.validation_split",
            "train",
            "--out",
            str(run),
        ]
        steps = (
            ["--training.steps", "10", "--training.warmup_steps", "2"] if arguments.quick else []
        )
        config = load(PretrainConfig, ["--config", "configs/overfit.yaml", *overrides, *steps])
        start = time.perf_counter()
        commands.pretrain(config)
        seconds = time.perf_counter() - start
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    figures = {name: last[name] for name in last if name.startswith("h_mae")}
    print(
        json.dumps(
            {
                "benchmark": "overfit",
                "molecules": len(KEYS),
                "steps": config.training.steps,
                "seconds": round(seconds, 1),
                **figures,
            }
        )
    )


if __name__ == "__main__":
    main()
