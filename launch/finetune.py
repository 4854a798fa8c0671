"""Learn energies from few labels: random, frozen and finetuned backbone side by side.

python launch/finetune.py --source runs/bundle --data data_shards/quickstart --out runs/finetune
"""

from helm_scale import commands, config

if __name__ == "__main__":
    config.launch(config.FinetuneConfig, commands.finetune)
