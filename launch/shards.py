"""Datasets of Hamiltonians: make or import one, check one, say what one holds, divide and join them.

python launch/shards.py generate --config configs/quickstart_data.yaml [--key value ...]    (--help lists the keys)
python launch/shards.py import DATASET --source FILE --out FOLDER [--key value ...]         (docs/datasets.md)
python launch/shards.py verify FOLDER
python launch/shards.py info FOLDER
"""

import logging
import sys

from helm_scale import build, config


def main(arguments: list[str]) -> str:
    """Run one command; returns what to print.

    Raises:
        ValueError, OSError: one clear message.
    """
    match arguments:
        case ["generate", *rest]:
            return build.shards_generate(config.load(config.GenerateConfig, rest))
        case ["import", dataset, *rest]:
            return build.shards_import(config.load(config.ImportConfig, ["--dataset", dataset, *rest]))
        case ["verify", folder]:
            return build.shards_verify(folder)
        case ["info", folder]:
            return build.shards_info(folder)
    usage = (__doc__ or "").split("\n", 2)[2].rstrip()
    if arguments in (["--help"], ["-h"]):
        return usage
    raise ValueError(f"got {' '.join(arguments) or 'no command'}; wanted one of\n{usage}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sys.stdout.write(main(sys.argv[1:]) + "\n")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
