"""Datasets of Hamiltonians: make or import one, check one, say what one holds, divide and join them.

python launch/shards.py generate --config configs/quickstart_data.yaml [--key value ...]    (--help lists the keys)
python launch/shards.py import DATASET --source FILE --out FOLDER [--key value ...]         (docs/datasets.md)
python launch/shards.py verify FOLDER
python launch/shards.py info FOLDER [--png FILE] [--cutoffs [6,9,12]] [--config TRAINING.yaml --ranks 64]
python launch/shards.py split --folder FOLDER [--by geometry --fractions [0.8,0.1,0.1] ...]
python launch/shards.py leaks --folder FOLDER [--tolerance 0.05]
python launch/shards.py repack --folder FOLDER --out NEW_FOLDER [--molecules_per_shard 64]
python launch/shards.py concat NEW_FOLDER FOLDER [FOLDER ...]
"""

import logging
import sys

from helm_scale import commands, config


def main(arguments: list[str]) -> str:
    """Run one command; returns what to print.

    Raises:
        ValueError, OSError: one clear message.
    """
    match arguments:
        case ["generate", *rest]:
            return commands.shards_generate(config.load(config.GenerateConfig, rest))
        case ["import", dataset, *rest]:
            return commands.shards_import(
                config.load(config.ImportConfig, ["--dataset", dataset, *rest])
            )
        case ["verify", folder]:
            return commands.shards_verify(folder)
        case ["info", folder, *rest]:
            return commands.shards_info(
                config.load(config.InfoConfig, ["--data.path", folder, *rest])
            )
        case ["split", *rest]:
            return commands.shards_split(config.load(config.SplitConfig, rest))
        case ["leaks", *rest]:
            return commands.shards_leaks(config.load(config.LeaksConfig, rest))
        case ["repack", *rest]:
            return commands.shards_repack(config.load(config.RepackConfig, rest))
        case ["concat", out, *folders] if folders:
            return commands.shards_concat(out, folders)
    usage = (__doc__ or "").split("\n\n", 1)[1].rstrip()
    if arguments in (["--help"], ["-h"]):
        return usage
    raise ValueError(f"got {' '.join(arguments) or 'no command'}; wanted one of\n{usage}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sys.stdout.write(main(sys.argv[1:]) + "\n")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
