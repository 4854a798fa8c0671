"""Eight molecules with s, p, d and f shells and an ECP element, learned by heart.

That is possible only where labels, coupling, head and optimiser agree. Molecules come from
data_shards/quickstart (PBE/def2-TZVPD); the whole Hamiltonian is learned, without H0, by the same
command that pretrains.

    python benchmarks/overfit.py [--quick]
"""

import json
import tempfile
import time
from pathlib import Path

from report import command_line, report

from helm_scale import commands
from helm_scale.config import PretrainConfig, load
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, ShardWriter

KEYS = ("H2O", "NH3", "CH3OH", "SO2", "HCN", "PH3", "CH3Cl", "CH3I")


def write_eight(source: Path, out: Path) -> None:
    """Copy the eight molecules into a dataset of their own, as its training split."""
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


def learn(data: Path, out: Path, quick: bool) -> dict[str, float]:
    """Train on the molecules and validate on the same; errors of the last step, and seconds."""
    flags = [f"--data.path={data}", "--data.validation_split=train", f"--out={out}"]
    few = ["--training.steps=10", "--training.warmup_steps=2"] if quick else []
    config = load(PretrainConfig, ["--config=configs/overfit.yaml", *flags, *few])
    start = time.perf_counter()
    commands.pretrain(config)
    seconds = round(time.perf_counter() - start, 1)
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    errors = {name: value for name, value in last.items() if name.startswith("h_mae")}
    return {"steps": config.training.steps, "seconds": seconds, **errors}


def main() -> None:
    """Train, and print the error of the last step; the last line is one JSON object."""
    parser = command_line(__doc__, quick="10 steps")
    parser.add_argument(
        "--data", default="data_shards/quickstart", help="dataset with the eight molecules"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "eight"
        write_eight(Path(arguments.data), data)
        figures = learn(data, Path(folder) / "run", arguments.quick)
    report("overfit", molecules=len(KEYS), **figures)


if __name__ == "__main__":
    main()
