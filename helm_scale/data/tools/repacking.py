"""The same samples in shards of another size."""

from pathlib import Path

from tqdm import tqdm

from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, ShardWriter


def repack(folder: str | Path, out: Path, molecules_per_shard: int) -> Manifest:
    """Write a dataset anew, each sample checked as it is read; samples keep their bytes, order and
    splits.

    Raises:
        ValueError: a damaged sample, or `out` holds a finished dataset.
    """
    dataset = Manifest.load(folder)
    reader = ShardReader(dataset)
    writer = ShardWriter(out, dataset.method, dataset.licence, dataset.source, molecules_per_shard)
    for index in tqdm(range(len(dataset)), desc="repack", unit="molecule", dynamic_ncols=True):
        writer.write(reader.read(index), str(dataset.splits[index]))
    return writer.close(dataset.rejected)
