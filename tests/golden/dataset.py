"""Nine real molecules with every label.

H, H0, energies and forces come from the committed shards, overlaps from PySCF. There are asymmetric
molecules, charged ones, s, p, d and f shells, and iodine and bismuth with their effective core
potentials.
"""

from dataclasses import replace
from pathlib import Path

from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, ShardWriter
from helm_scale.dft.energies import overlap

SOURCE = Path(__file__).parents[2] / "data_shards/quickstart"
TRAIN = ("H2O", "OH-", "H2O2", "HOCl", "HI", "BiH2F", "BiH3", "CH3OH")
VALIDATION = ("H3O+",)


def write_dataset(folder: Path) -> None:
    """Write the molecules as shards, in the splits train and validation."""
    manifest = Manifest.load(SOURCE)
    reader, index = ShardReader(manifest), {str(key): i for i, key in enumerate(manifest.key)}
    writer = ShardWriter(
        folder,
        manifest.method,
        licence=manifest.licence,
        source="data_shards/quickstart",
        molecules_per_shard=4,
    )
    for key in (*TRAIN, *VALIDATION):
        molecule = reader.read(index[key])
        # The order of samples follows from the bytes of the data, whose last bits another CPU
        # computes differently; adding zero makes -0 to 0
        rounded = overlap(molecule, manifest.method.basis).round(8) + 0.0
        labelled = replace(molecule, overlap=rounded)
        writer.write(labelled, "validation" if key in VALIDATION else "train")
    writer.close()
