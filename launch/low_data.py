"""Low-data protocol: label molecules, pretrain on their Hamiltonians, learn energies from few of them; a rerun resumes.

python launch/low_data.py --config configs/low_data.yaml
"""

import logging

from helm_scale import commands, config

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config.launch(config.LowDataConfig, commands.low_data)
