"""What the plan says of remote data is what a cache of that size fetches."""

from pathlib import Path

import numpy as np

from helm_scale.config import DataConfig
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.epochs import ShuffledEpochs
from helm_scale.data.loading.traffic import bytes_per_epoch, traffic_text
from tests.data.labels import write_dataset

SHARDS, PER_SHARD, HELD = 100, 64, 36


def fetched(order: np.ndarray, held: int) -> int:
    """Shards that are fetched into a cache of `held`; the one unused for longest goes."""
    cache: dict[int, None] = {}
    count = 0
    for shard in (order // PER_SHARD).tolist():
        count += shard not in cache
        cache.pop(shard, None)
        cache[shard] = None
        if len(cache) > held:
            del cache[next(iter(cache))]
    return count


def test_estimate_is_what_a_cache_of_shards_fetches_in_an_epoch() -> None:
    samples = SHARDS * PER_SHARD
    order = ShuffledEpochs("a", np.arange(samples), seed=0).at(np.arange(samples))
    estimate = bytes_per_epoch(samples=samples, shard=1.0, shards=SHARDS, cache=HELD)
    assert abs(fetched(order, HELD) / estimate - 1) < 0.05


def test_plan_warns_where_shuffled_shards_do_not_fit(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path / "dataset")
    total = sum(record.size for record in manifest.shards)

    def text(share: float, window: int) -> str:
        return traffic_text(
            Dataset.open(
                DataConfig(
                    path=f"file:{manifest.folder}",
                    cache=str(tmp_path / "cache"),
                    cache_gb=share * total / 1e9,
                    shuffle_window=window,
                )
            )
        )

    assert text(1.5, 0).endswith("fetches a shard once")
    assert "Warning" in text(0.7, 0) and "data.shuffle_window to 1" in text(0.7, 0)
    assert text(0.7, 1).endswith("GB per epoch") and "Warning" not in text(0.7, 1)
    assert traffic_text(Dataset.open(DataConfig(path=str(manifest.folder)))) == ""
