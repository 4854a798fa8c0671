"""Says how many bytes of remote shards an epoch fetches, by sizes of data, window and cache."""

from helm_scale.data.loading.dataset import Dataset


def bytes_per_epoch(*, samples: int, shard: float, shards: int, cache: float) -> float:
    """Bytes that an epoch fetches where the shards that are shuffled together outgrow the cache.

    Samples come in random order, and a cache of C shards of n holds the next one with probability
    C / n; else a whole shard is fetched. It is the sum over nodes, if their caches are equal.

    Args:
        samples: per epoch. shard: bytes of one. shards: shuffled together. cache: bytes, of a node.
    """
    return samples * shard * max(0.0, 1 - cache / (shard * shards))


def traffic_text(dataset: Dataset) -> str:
    """The line of the plan on remote data, with a warning and its remedy; empty for local data."""
    config, remote = dataset.config, dataset.remote
    if not remote:
        return ""
    total = sum(record.size for manifest in remote for record in manifest.shards)
    shards = sum(len(manifest.shards) for manifest in remote)
    samples = sum(len(manifest.split(config.train_split)) for manifest in remote)
    window = min(config.shuffle_window * len(remote) or shards, shards)
    cache, shard = config.cache_gb * 1e9, total / shards
    start = f"remote data: {total / 1e9:.4g} GB in {shards} shards, cache {config.cache_gb:g} GB"
    if total <= cache:
        return f"{start} per node: each node fetches a shard once"
    if window * shard <= cache:
        return f"{start} per node: each node fetches up to {total / 1e9:.4g} GB per epoch"
    fetched = bytes_per_epoch(samples=samples, shard=shard, shards=window, cache=cache)
    return (
        f"{start} per node. Warning: {window} shards are shuffled together and do not fit; all"
        f" nodes together fetch about {fetched / 1e9:.4g} GB per epoch; set data.shuffle_window to"
        f" {max(int(cache / shard / 2 / len(remote)), 1)}, or raise data.cache_gb"
    )
