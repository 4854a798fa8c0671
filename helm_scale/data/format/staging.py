"""Keeps the labels of an unfinished dataset, one file per molecule, so that a kill loses none.

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
    """Labelled molecules on their way into shards; each file is whole or absent.

    Args:
        out: folder of the dataset to be. method: of its labels.
        labels: names of the labels that every molecule gets.
    """

    def __init__(self, out: Path, method: Method, labels: tuple[str, ...]) -> None:
        self._out, self._method, self._labels = out, method, labels
        self._folder = out / "staging"

    def add(self, molecule: Molecule) -> None:
        """Keep a labelled molecule."""
        self._folder.mkdir(parents=True, exist_ok=True)
        shards.write_sample(self._file(molecule.key), molecule)

    def missing(self, molecules: Sequence[Molecule]) -> list[Molecule]:
        """List the molecules without labels yet, in order.

        Raises:
            ValueError: a key that cannot name a sample, or a file with labels of another method,
                other names or another geometry.
        """
        # All keys before the first label: hours of SCF must not end at a name that is refused.
        for molecule in molecules:
            shards.check_key(molecule.key)
        return [molecule for molecule in molecules if not self._has(molecule)]

    def finish(
        self,
        molecules: Sequence[Molecule],
        splits: Sequence[str],
        *,
        rejected: Sequence[RejectedMolecule],
        licence: str,
        source: str,
        molecules_per_shard: int,
    ) -> Manifest:
        """Turn the files into shards and a manifest, and remove them.

        Raises:
            ValueError: no molecule was labelled.
        """
        writer = shards.ShardWriter(
            self._out,
            self._method,
            licence=licence,
            source=source,
            molecules_per_shard=molecules_per_shard,
        )
        failed = {molecule.key for molecule in rejected}
        # In the order of the input, so that parallel runs give the same shards.
        for molecule, split in zip(molecules, splits, strict=True):
            if molecule.key not in failed:
                writer.write(shards.read_sample(self._file(molecule.key)), split)
        dataset = writer.close(rejected)
        self.clear()
        return dataset

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.tar"

    def _has(self, molecule: Molecule) -> bool:
        """Whether the molecule's labels are there; raises ValueError if they are others."""
        file = self._file(molecule.key)
        if not file.is_file():
            return False
        stored = shards.read_sample(file)
        check_same_labels(
            file,
            {"method": stored.method, "labels": codec.labels_of(stored)},
            other="what is asked for now",
            wanted={"method": self._method, "labels": self._labels},
            remedy=f"choose another folder or remove {self._folder}",
        )
        if not _same_input(stored, molecule):
            raise ValueError(
                f"{file}: labels of another geometry or charge than the input now has;"
                " remove the file, and it is made anew"
            )
        return True


def _same_input(first: Molecule, second: Molecule) -> bool:
    """Whether two molecules are the same to the last bit, labels aside."""
    # Exactly: labels of a geometry that differs in the last digit are those of another one.
    return (
        first.charge == second.charge
        and first.spin_multiplicity == second.spin_multiplicity
        and np.array_equal(first.atomic_numbers, second.atomic_numbers)
        and np.array_equal(first.positions, second.positions)
    )


def finished_dataset(
    out: Path, *, method: Method, labels: tuple[str, ...], source: str
) -> Manifest | None:
    """Return the dataset in `out` if it is finished, else None.

    Raises:
        ValueError: it has another method, other labels, or was made from another input.
    """
    if not (out / manifest.NAME).is_file():
        return None
    dataset = Manifest.load(out)
    check_same_labels(
        f"the finished dataset in {out}",
        {**dataset.label_kind, "input": dataset.source},
        other="what is asked for now",
        wanted={"method": method, "labels": labels, "input": source},
        remedy="choose another folder or remove it",
    )
    return dataset
