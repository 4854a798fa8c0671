"""Write a run's backbone as a bundle that torch and safetensors load alone, or verify one.

python launch/export.py --source runs/pretrain --out runs/bundle
python launch/export.py --out runs/bundle --verify
"""

from helm_scale import commands, config

if __name__ == "__main__":
    config.launch(config.ExportConfig, commands.export)
