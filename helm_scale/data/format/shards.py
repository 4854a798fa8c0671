"""Writes shards, tar files of samples, in one go, and reads their samples at random.

webdataset reads them too; order, random access and integrity come from the manifest, which
webdataset does not have. The format is described in data_shards/README.md.
"""

import hashlib
import io
import os
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# isal computes CRC-32 with the processor's own instructions, ten times as fast as zlib.
from isal.isal_zlib import crc32
from webdataset.writer import TarWriter

from helm_scale.basis import elements
from helm_scale.basis.shells import nao
from helm_scale.data.format import codec, manifest, tar
from helm_scale.data.format.cache import CachedShards, LocalShards
from helm_scale.data.format.compatibility import check_same_labels
from helm_scale.data.format.manifest import Manifest, RejectedMolecule, SampleRecord, ShardRecord
from helm_scale.files import sha256, write_atomically
from helm_scale.types import Method, Molecule

KEY = re.compile(r"[A-Za-z0-9_+=-]{1,90}")
END_OF_ARCHIVE = bytes(1024)  # two zero blocks, as POSIX has it
TYPICAL_BLOCK = 1600  # matrix elements of a block of two atoms of 40 AOs: one unit of cost


def check_key(key: str) -> None:
    """Raise ValueError unless a key can name a sample: webdataset cuts names at the first dot."""
    if not KEY.fullmatch(key):
        raise ValueError(
            f"key '{key}': wanted 1 to 90 of A-Z a-z 0-9 _ + = - (no dot, space or slash);"
            " rename the molecule"
        )


def cost_of(molecule: Molecule, basis: str) -> float:
    """Estimate the work that a training step has with a molecule.

    Atoms, pairs, and the matrix elements of one triangle in units of a typical block.
    """
    sizes = [nao(basis, int(z)) for z in molecule.atomic_numbers]
    atoms = len(sizes)
    elements_of_triangle = (sum(sizes) ** 2 + sum(size**2 for size in sizes)) / 2
    return round(atoms * (atoms + 1) / 2 + elements_of_triangle / TYPICAL_BLOCK, 3)


def sample_bytes(molecule: Molecule) -> bytes:
    """Make the bytes of a sample in a tar file, headers and padding included; the same every time.

    Raises:
        ValueError: what `codec.encode` refuses, or a key that cannot name a sample.
    """
    check_key(molecule.key)
    buffer = io.BytesIO()
    # Neither time nor user goes into the headers, so that equal labels are equal bytes.
    with TarWriter(buffer, encoder=False, mtime=0, user="", group="") as writer:
        writer.write({"__key__": molecule.key, **codec.encode(molecule)})
        size = writer.tarstream.offset
    return buffer.getvalue()[:size]  # without the end of the archive, which comes once per shard


def write_sample(path: Path, molecule: Molecule) -> None:
    """Write a tar file of one sample, atomically."""
    write_atomically(path, sample_bytes(molecule) + END_OF_ARCHIVE)


def read_sample(path: Path) -> Molecule:
    """Read a file of `write_sample`; no manifest vouches for it, so that every array is checked.

    Raises:
        ValueError: it is damaged.
    """
    content = path.read_bytes()
    if not content.endswith(END_OF_ARCHIVE):
        raise ValueError(
            f"{path}: cut short: its end is missing; remove the file, and it is made anew"
        )
    members = _members(memoryview(content)[: -len(END_OF_ARCHIVE)], path.stem, str(path))
    try:
        damaged = zipfile.ZipFile(io.BytesIO(members["npz"])).testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path}: {error}; remove the file, and it is made anew") from None
    if damaged:
        raise ValueError(
            f"{path}: CRC-32 of {damaged} is wrong; remove the file, and it is made anew"
        )
    return codec.decode(members, str(path))


class ShardWriter:
    """Writes a dataset sample by sample; the manifest comes last, with `close`.

    Args:
        folder: made if absent. method: of every sample. licence: SPDX name.
        source: text that identifies the input. molecules_per_shard: size of the tar files.
    Raises:
        ValueError: the folder holds a finished dataset.
    """

    def __init__(
        self, folder: Path, method: Method, *, licence: str, source: str, molecules_per_shard: int
    ) -> None:
        if (folder / manifest.NAME).exists():
            raise ValueError(
                f"{folder}: holds a finished dataset already; choose another folder or remove it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._molecules_per_shard = folder, molecules_per_shard
        self._method, self._licence, self._source = method, licence, source
        self._labels: tuple[str, ...] = ()
        self._samples: dict[str, SampleRecord] = {}
        self._shards: list[ShardRecord] = []
        self._elements: Counter[int] = Counter()

    def write(self, molecule: Molecule, split: str) -> None:
        """Append one sample.

        Raises:
            ValueError: a key with a dot or used before; another method or other labels than the
                samples before; labels that `codec.encode` refuses.
        """
        if molecule.key in self._samples:
            raise ValueError(
                f"{self._folder}: key '{molecule.key}' occurs twice;"
                " keys are unique within a dataset"
            )
        self._check_alike(molecule)
        content = sample_bytes(molecule)
        shard, place = divmod(len(self._samples), self._molecules_per_shard)
        if place == 0:
            self._finish_shard()
            self._file = (self._folder / f"shard-{shard:06d}.tar").open("wb")
            self._sha256 = hashlib.sha256()
        atoms = len(molecule.atomic_numbers)
        self._samples[molecule.key] = SampleRecord(
            key=molecule.key,
            split=split,
            shard=shard,
            offset=self._file.tell(),
            size=len(content),
            crc32=crc32(content),
            atoms=atoms,
            pairs=atoms * (atoms - 1) // 2,
            cost=cost_of(molecule, self._method.basis),
        )
        self._append(content)
        self._elements.update(int(z) for z in molecule.atomic_numbers)

    def close(self, rejected: Sequence[RejectedMolecule] = ()) -> Manifest:
        """Finish the last shard and write the manifest.

        Args:
            rejected: molecules that could not be labelled.
        Raises:
            ValueError: no sample was written.
        """
        if not self._samples:
            raise ValueError(f"{self._folder}: no molecule to write ({len(rejected)} rejected)")
        self._finish_shard()
        head = {
            "method": self._method,
            "licence": self._licence,
            "source": self._source,
            "labels": self._labels,
            "elements": {elements.symbol(z): self._elements[z] for z in sorted(self._elements)},
        }
        return manifest.write(
            self._folder,
            head,
            shards=self._shards,
            samples=list(self._samples.values()),
            rejected=rejected,
        )

    def _append(self, content: bytes) -> None:
        self._file.write(content)
        self._sha256.update(content)

    def _finish_shard(self) -> None:
        """End the open tar file, if any, and note its size and checksum."""
        if len(self._samples) == 0:
            return
        self._append(END_OF_ARCHIVE)
        size = self._file.tell()
        self._file.flush()  # on disk before the manifest that promises it
        os.fsync(self._file.fileno())
        self._file.close()
        self._shards.append(ShardRecord(Path(self._file.name).name, size, self._sha256.hexdigest()))

    def _check_alike(self, molecule: Molecule) -> None:
        """Raise ValueError if method or labels differ from those of the dataset."""
        labels = codec.labels_of(molecule)
        self._labels = self._labels or labels  # the first molecule says which there are
        check_same_labels(
            f"key '{molecule.key}'",
            {"method": molecule.method, "labels": labels},
            other=self._folder,
            wanted={"method": self._method, "labels": self._labels},
            remedy="one dataset holds one method and one set of labels: write two datasets",
        )


class ShardReader:
    """Random access to the samples of a dataset, each checked as it is read; fork-safe.

    Args:
        dataset: its manifest. shards: where its tar files are read from; none: from the folder of
            the manifest.
        missing: whether shards may be missing there; then only reading a sample of one fails.
    Raises:
        ValueError: a shard is missing.
    """

    def __init__(
        self,
        dataset: Manifest,
        shards: LocalShards | CachedShards | None = None,
        missing: bool = False,
    ) -> None:
        self.manifest, self._shards = dataset, shards or LocalShards(dataset.folder)
        if shards is None and not missing:
            # One listing instead of a look at each of many thousand shards on a slow disk.
            present = set(os.listdir(dataset.folder))
            for shard in dataset.shards:
                if shard.name not in present:
                    raise ValueError(
                        f"{dataset.folder / shard.name}: shard not found;"
                        " the manifest lists it: get it anew"
                    )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.manifest)

    def size(self, index: int) -> int:
        """Bytes of a sample in its shard."""
        return int(self.manifest.size[index])

    def expect(self, index: int) -> None:
        """Have the system fetch a sample from the disk, without waiting for it."""
        listed = self.manifest
        self._shards.expect(
            listed.shards[listed.shard[index]], int(listed.offset[index]), int(listed.size[index])
        )

    def read(self, index: int) -> Molecule:
        """Read sample `index` (its place in the manifest).

        Raises:
            ValueError: shard cut short or changed, or the sample contradicts the manifest; names
                shard and key.
        """
        return self.read_stored(index, memoryview(bytearray(self.size(index)))).dense()

    def read_stored(self, index: int, memory: memoryview) -> codec.StoredSample:
        """Read a sample into memory of at least its size; the matrices are views on it.

        Raises:
            ValueError: as `read`.
        """
        listed, where = self.manifest, self.manifest.where(index)
        offset, size = int(listed.offset[index]), int(listed.size[index])
        content = memory[:size]
        got = self._shards.read_into(listed.shards[listed.shard[index]], offset, content)
        if got != size:
            raise ValueError(
                f"{where}: shard is cut short: got {got} of {size} bytes at {offset};"
                " get the shard anew"
            )
        if crc32(content) != listed.crc32[index]:
            raise ValueError(
                f"{where}: bytes have changed (CRC-32 {crc32(content):08x},"
                f" wanted {int(listed.crc32[index]):08x}); get the shard anew"
            )
        return self.parsed(index, content)

    def parsed(self, index: int, content: memoryview) -> codec.StoredSample:
        """Parse the bytes of a sample.

        Raises:
            ValueError: it contradicts the format, the basis or the manifest.
        """
        where = self.manifest.where(index)
        sample = codec.parse(_members(content, str(self.manifest.key[index]), where), where)
        self._check_listed(sample, index, where)
        return sample

    def _check_listed(self, sample: codec.StoredSample, index: int, where: str) -> None:
        """Raise ValueError if the sample is not what the manifest says."""
        molecule = sample.molecule
        listed = self.manifest
        check_same_labels(
            where,
            {
                "key": molecule.key,
                "atoms": len(molecule.atomic_numbers),
                "method": molecule.method,
                "labels": sample.labels,
            },
            other="the manifest",
            wanted={
                "key": str(listed.key[index]),
                "atoms": int(listed.atoms[index]),
                "method": listed.method,
                "labels": listed.labels,
            },
            remedy="manifest and shard do not belong together",
        )


def verify(folder: str | Path) -> list[str]:
    """Check every byte and every sample of a dataset.

    SHA-256 and size of the shards; that plain tar readers find the same samples in the same order;
    every sample's checks.

    Returns:
        what is wrong, one line each; nothing if all is well.
    Raises:
        ValueError: no manifest to check against, or a missing shard.
    """
    dataset = Manifest.load(folder)
    reader = ShardReader(dataset)
    problems: list[str] = []
    for number in range(len(dataset.shards)):
        try:
            problems += _shard_problems(dataset, number)
        except ValueError as error:
            problems.append(str(error))
    problems += [
        f"{dataset.folder}: key '{key}' occurs {count} times"
        for key, count in Counter(dataset.key.tolist()).items()
        if count > 1
    ]
    listed = {shard.name for shard in dataset.shards}
    strangers = sorted({path.name for path in dataset.folder.glob("*.tar")} - listed)
    problems += [f"{dataset.folder / name}: not in the manifest" for name in strangers]
    for index in range(len(dataset)):
        try:
            reader.read(index)
        except ValueError as error:
            problems.append(str(error))
    return problems


def _shard_problems(dataset: Manifest, number: int) -> Iterator[str]:
    """What is wrong with one tar file as a whole."""
    record = dataset.shards[number]
    path = dataset.folder / record.name
    digest = sha256(path)
    if path.stat().st_size != record.size:
        yield f"{path}: got {path.stat().st_size} bytes, wanted {record.size}; get the shard anew"
    elif digest != record.sha256:
        yield f"{path}: SHA-256 {digest}, wanted {record.sha256}; get the shard anew"
    else:
        # By tarfile, and not by our own reader: other programs are to find the samples, too.
        with _named_damage(str(path)), tarfile.open(path) as archive:
            headers = [member for member in archive if member.name.endswith(".json")]
        present = [(member.name, member.offset) for member in headers]
        rows = dataset.shard == number
        wanted = [
            (f"{key}.json", int(offset))
            for key, offset in zip(dataset.key[rows], dataset.offset[rows], strict=True)
        ]
        if present != wanted:
            yield (
                f"{path}: holds other samples than the manifest lists; they do not belong together"
            )


def _members(content: memoryview, key: str, where: str) -> dict[str, memoryview]:
    """Split the bytes of one sample into its members."""
    try:
        members = tar.members(content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; get the shard anew") from None
    if set(members) != {f"{key}.json", f"{key}.npz"}:
        raise ValueError(
            f"{where}: got the members {', '.join(sorted(members)) or 'none'},"
            f" wanted {key}.json and {key}.npz; get the shard anew"
        )
    return {"json": members[f"{key}.json"], "npz": members[f"{key}.npz"]}


@contextmanager
def _named_damage(where: str) -> Iterator[None]:
    """Turn errors of tarfile into one that names the file."""
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{where}: damaged tar header ({error}); get the shard anew") from None
