"""Merge datasets into one without decoding a sample; write one anew in shards of another size."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from helm_scale.basis import elements
from helm_scale.data.format import manifest
from helm_scale.data.format.compatibility import check_same_labels
from helm_scale.data.format.manifest import Manifest, RejectedMolecule, SampleRecord, ShardRecord
from helm_scale.data.format.shards import ShardReader, ShardWriter


def concat(folders: Sequence[str | Path], out: Path) -> Manifest:
    """Copy datasets into a new one, one after the other.

    Raises:
        ValueError: methods or labels differ, a key occurs twice, or `out` holds a finished dataset.
    """
    return merge([Manifest.load(folder) for folder in folders], out, transfer=shutil.copyfile)


def merge(
    parts: Sequence[Manifest],
    out: Path,
    *,
    transfer: Callable[[Path, Path], object],
    source: str | None = None,
    rejected: Sequence[RejectedMolecule] = (),
) -> Manifest:
    """Bring the shards of datasets into one folder, numbered anew, and write its manifest last.

    Args:
        transfer: brings one file from the first path to the second.
        source: text that identifies the input; by default the parts' own.
        rejected: samples left out, beside those of the parts.
    Raises:
        ValueError: as `concat`, or a shard that did not arrive whole.
    """
    # All checks come before the first file is brought: a refusal leaves nothing behind.
    if (out / manifest.NAME).exists():
        raise ValueError(
            f"{out}: holds a finished dataset already; choose another folder or remove it"
        )
    _check_alike(parts)
    _check_keys(parts)
    out.mkdir(parents=True, exist_ok=True)
    shards: list[ShardRecord] = []
    for part in parts:
        for shard in part.shards:
            target = out / f"shard-{len(shards):06d}.tar"
            transfer(part.folder / shard.name, target)
            if not target.is_file() or target.stat().st_size != shard.size:
                raise ValueError(
                    f"{target}: did not arrive whole from {part.folder / shard.name};"
                    " check the disk and run again"
                )
            shards.append(ShardRecord(target.name, shard.size, shard.sha256))
    head = {
        "method": parts[0].method,
        "licence": " AND ".join(dict.fromkeys(part.licence for part in parts)),
        "source": source or "; ".join(dict.fromkeys(part.source for part in parts)),
        "labels": parts[0].labels,
        "elements": _sum(part.elements for part in parts),
    }
    return manifest.write(
        out,
        head,
        shards=shards,
        samples=_rows(parts),
        rejected=[*rejected, *(one for part in parts for one in part.rejected)],
    )


def repack(folder: str | Path, out: Path, molecules_per_shard: int) -> Manifest:
    """Write a dataset anew in shards of another size; samples keep bytes, order and splits.

    Raises:
        ValueError: a damaged sample, or `out` holds a finished dataset.
    """
    dataset = Manifest.load(folder)
    reader = ShardReader(dataset)
    writer = ShardWriter(
        out,
        dataset.method,
        licence=dataset.licence,
        source=dataset.source,
        molecules_per_shard=molecules_per_shard,
    )
    for index in tqdm(range(len(dataset)), desc="repack", unit="molecule", dynamic_ncols=True):
        writer.write(reader.read(index), str(dataset.splits[index]))
    return writer.close(dataset.rejected)


def _rows(parts: Sequence[Manifest]) -> list[SampleRecord]:
    rows, first = [], 0
    for part in parts:
        rows += part.rows(part.splits, first)
        first += len(part.shards)
    return rows


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return {symbol: total[symbol] for symbol in sorted(total, key=elements.atomic_number)}


def _check_alike(parts: Sequence[Manifest]) -> None:
    if not parts:
        raise ValueError("nothing to join; name at least one dataset")
    for part in parts[1:]:
        check_same_labels(
            part.folder,
            part.label_kind,
            other=parts[0].folder,
            wanted=parts[0].label_kind,
            remedy="one dataset holds one method and one set of labels",
        )


def _check_keys(parts: Sequence[Manifest]) -> None:
    seen: dict[str, Path] = {}
    for part in parts:
        for key in part.key.tolist():
            if key in seen:
                raise ValueError(
                    f"{part.folder}: key '{key}' occurs in {seen[key]} too;"
                    " keys are unique within a dataset"
                )
            seen[key] = part.folder
