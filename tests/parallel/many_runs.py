"""Many pretrainings one after another in one start of the ranks: torchrun ... many_runs.py FILE

FILE holds a JSON list of lists of flags of launch/pretrain.py. Ranks meet once, which saves most of
the time.
"""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from helm_scale import commands, config
from helm_scale.config import ExecutionConfig
from helm_scale.parallel import collectives, startup
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.watchdog import Watchdog

if __name__ == "__main__":
    torch.set_num_threads(1)
    with startup.process_group(ExecutionConfig(engine="ddp", device="cpu", pair_ranks=1)) as ranks:

        def joined(execution: ExecutionConfig, watchdog: Watchdog) -> nullcontext[Processes]:
            watchdog.join(ranks.store, ranks.rank, ranks.world_size)
            return nullcontext(ranks)

        startup.process_group = joined  # type: ignore[assignment]
        for flags in json.loads(Path(sys.argv[1]).read_text()):
            commands.pretrain(config.load(config.PretrainConfig, flags))
        collectives.barrier()
        sys.stdout.flush()
        # torch sometimes aborts when it takes down the groups of so many engines, more than any
        # run has.
        os._exit(0)
