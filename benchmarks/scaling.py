"""Error against parameters and against data, as a table and as two curves.

A ladder of models is trained on a ladder of amounts of data. The ladder is a YAML file
(benchmarks/scaling.yaml): a config of launch/pretrain.py, sizes (settings of the model) and numbers
of training molecules. Amounts are nested: a smaller one is a part of the larger. A rerun goes on
where it stopped.

    python benchmarks/scaling.py [--ladder benchmarks/scaling.yaml] [--out runs/scaling] [--quick]
"""

import json
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from report import command_line, report

from helm_scale import commands
from helm_scale.config import DataConfig, PretrainConfig, load
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, ShardWriter

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TINY = {
    "config": "configs/quickstart.yaml",
    "sizes": {
        str(c): {"channels": c, "hidden_channels": c, "edge_channels": 8, "num_layers": 1}
        for c in (2, 4)
    },
    "molecules": [2, 4],
    "settings": {
        "training.steps": 2,
        "training.batch_molecules": 2,
        "training.warmup_steps": 1,
        "execution.progress": "false",
    },
}


def take(source: DataConfig, count: int, out: Path) -> Path:
    """A dataset of the first `count` training molecules and all validation molecules."""
    if not (out / "manifest.json").exists():
        manifest = Manifest.load(str(source.path))
        reader = ShardReader(manifest)
        writer = ShardWriter(
            out,
            manifest.method,
            licence=manifest.licence,
            source=str(source.path),
            molecules_per_shard=256,
        )
        wanted = {
            "train": manifest.split(source.train_split)[:count],
            "validation": manifest.split(source.validation_split),
        }
        for name, indices in wanted.items():
            for index in indices:
                writer.write(reader.read(int(index)), name)
        writer.close()
    return out


def train(run: Path, data: Path, ladder: dict[str, Any], size: dict[str, Any]) -> dict[str, Any]:
    """Train one model on one amount; parameters and validation error (1e-6 Eh)."""
    settings = {
        "config": ladder["config"],
        "out": run,
        "data.path": data,
        "data.train_split": "train",
        "data.validation_split": "validation",
        **{f"model.{name}": value for name, value in size.items()},
        **ladder.get("settings", {}),
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    commands.pretrain(load(PretrainConfig, flags))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    error = [line["validation_h_mae_ueh"] for line in lines if "validation_h_mae_ueh" in line][-1]
    return {
        "parameters": sum(p.numel() for p in commands.load_model(run)[0].parameters()),
        "h_mae_ueh": round(error, 3),
    }


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Two log-log plots: a line per amount over parameters, a line per size over molecules."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, over, apart, label in zip(
        axes,
        ("parameters", "molecules"),
        ("molecules", "size"),
        ("parameters", "training molecules"),
        strict=True,
    ):
        for name in dict.fromkeys(row[apart] for row in rows):
            line = sorted((row[over], row["h_mae_ueh"]) for row in rows if row[apart] == name)
            axis.loglog(
                *zip(*line, strict=True),
                "o-",
                label=f"{name} molecules" if apart == "molecules" else name,
            )
        axis.set_xlabel(label)
        axis.legend()
    axes[0].set_ylabel("validation error of H / 1e-6 Eh")
    figure.tight_layout()
    figure.savefig(out, dpi=150)


def climb(ladder: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """Train every size on every amount in turn."""
    source = load(PretrainConfig, ["--config", ladder["config"]]).data
    rows = []
    for count in ladder["molecules"]:
        data = take(source, count, out / f"data-{count}")
        for name, size in ladder["sizes"].items():
            figures = train(out / f"{name}-{count}", data, ladder, size)
            rows.append({"size": name, "molecules": count, **figures})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Train the ladder and draw it; the last line is one JSON object."""
    parser = command_line(
        __doc__, quick="two sizes of a tiny model, two amounts of the committed molecules, 2 steps"
    )
    parser.add_argument("--ladder", default="benchmarks/scaling.yaml")
    parser.add_argument("--out", default="runs/scaling")
    arguments = parser.parse_args()
    if arguments.quick:
        ladder, out = TINY, Path("runs/scaling-quick")
    else:
        ladder, out = yaml.safe_load(Path(arguments.ladder).read_text()), Path(arguments.out)
    rows = climb(ladder, out)
    draw(rows, out / "scaling.png")
    report("scaling", plot=str(out / "scaling.png"), rows=rows)


if __name__ == "__main__":
    main()
