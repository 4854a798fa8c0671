"""What the training molecules of a dataset have in common, from manifest and geometries alone."""

import logging
from collections.abc import Iterator

from helm_scale.data.format.heads import read_head
from helm_scale.data.loading.dataset import Dataset
from helm_scale.reading.domain import TrainingDomain
from helm_scale.types import Molecule

_log = logging.getLogger(__name__)


def training_domain(dataset: Dataset) -> TrainingDomain:
    """Elements, sizes, charges, multiplicities and compositions of the training split.

    Of each sample the first kilobytes are read. Remote shards are not fetched for that: with one
    among them only elements (of all splits) and sizes are known.

    Raises:
        ValueError: no such split; or, unless damage is quarantined, a sample that cannot be read.
    """
    split = dataset.config.train_split
    if len(dataset.local) == len(dataset.manifests):
        return TrainingDomain.of(_molecules(dataset, split))
    atoms = dataset.atoms[dataset.split(split)]
    return TrainingDomain(
        molecules=len(atoms),
        elements=dataset.elements,
        atoms=(int(atoms.min()), int(atoms.max())),
    )


def _molecules(dataset: Dataset, split: str) -> Iterator[Molecule]:
    """Training molecules without labels."""
    skip = dataset.config.damaged == "quarantine"
    for manifest in dataset.manifests:
        if split not in manifest.names_of_splits:
            continue
        for index in manifest.split(split):
            try:
                yield read_head(manifest, int(index))
            except ValueError as error:
                if not skip:
                    raise
                _log.warning("not counted among the training molecules: %s", error)
