"""Labels of a dataset in the making: one small file per finished molecule, so that a killed run
loses nothing.

They lie in `out/staging/` until all are there; then they become shards in the order of the
input, whatever the order in which they were finished, and the folder goes.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helm_scale.data.format import codec, manifest, shards
from helm_scale.data.format.compatibility import check_same_labels
from helm_scale.data.format.manifest import Manifest, RejectedMolecule
from helm_scale.types import Method, Molecule


class StagingFolder:
    """The finished part of a dataset. Files appear by renaming, so each is complete or absent.

    Args:
        out: folder of the dataset to be. method: of its labels. labels: names of the labels that
            every molecule gets.
    """

    def __init__(self, out: Path, method: Method, labels: tuple[str, ...]) -> None:
        self._out, self._method, self._labels = out, method, labels
        self._folder = out / "staging"

    def add(self, molecule: Molecule) -> None:
        """Keep a labelled molecule."""
        self._folder.mkdir(parents=True, exist_ok=True)
        shards.write_sample(self._file(molecule.key), molecule)

    def missing(self, molecules: Sequence[Molecule]) -> list[Molecule]:
        """Molecules without labels yet, in order.

        Raises:
            ValueError: a key that cannot name a sample, or kept labels of another kind, method or
                geometry.
        """
        for molecule in molecules:
            shards.check_key(molecule.key)
        return [molecule for molecule in molecules if not self._has(molecule)]

    def finish(
        self,
        molecules: Sequence[Molecule],
        splits: Sequence[str],
        rejected: Sequence[RejectedMolecule],
        licence: str,
        source: str,
        molecules_per_shard: int,
    ) -> Manifest:
        """Turn the kept labels into shards and a manifest, and remove the kept files.

        Raises:
            ValueError: no molecule was labelled.
        """
        writer = shards.ShardWriter(self._out, self._method, licence, source, molecules_per_shard)
        failed = {one.key for one in rejected}
        for molecule, split in zip(molecules, splits, strict=True):
            if molecule.key not in failed:
                writer.write(shards.read_sample(self._file(molecule.key)), split)
        finished = writer.close(rejected)
        self.clear()
        return finished

    def clear(self) -> None:
        """Remove the kept files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.tar"

    def _has(self, molecule: Molecule) -> bool:
        """Whether the molecule's labels are kept."""
        file = self._file(molecule.key)
        if not file.is_file():
            return False
        kept = shards.read_sample(file)
        check_same_labels(
            file,
            {"method": kept.method, "labels": codec.labels_of(kept)},
            other="what is asked for now",
            wanted={"method": self._method, "labels": self._labels},
            remedy=f"choose another folder or remove {self._folder}",
        )
        same = (kept.charge, kept.spin_multiplicity) == (
            molecule.charge,
            molecule.spin_multiplicity,
        )
        for name in ("atomic_numbers", "positions"):
            same &= np.array_equal(getattr(kept, name), getattr(molecule, name))
        if not same:
            raise ValueError(
                f"{file}: labels of another geometry or charge than the input now has; remove the file, and it is made anew"
            )
        return True


def finished_dataset(
    out: Path, method: Method, labels: tuple[str, ...], source: str
) -> Manifest | None:
    """The dataset in `out` if it is finished, else None.

    Raises:
        ValueError: a finished dataset of another method, kind of labels or input is there.
    """
    if not (out / manifest.NAME).is_file():
        return None
    found = Manifest.load(out)
    check_same_labels(
        f"the finished dataset in {out}",
        {"method": found.method, "labels": found.labels, "input": found.source},
        other="what is asked for now",
        wanted={"method": method, "labels": labels, "input": source},
        remedy="choose another folder or remove it",
    )
    return found
