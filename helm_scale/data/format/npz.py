"""Reads the arrays of an uncompressed npz file in memory as views, without copy or checksum.

numpy.load reads the same files through zipfile, at several times the cost: it copies each array and
checks each CRC-32. Here the caller has checked the bytes already.
"""

import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_END = struct.Struct("<4s4H2IH")  # end of the central directory
_ENTRY = struct.Struct("<4s6H3I5H2I")  # a file in the central directory
_LOCAL = struct.Struct("<4s5H3I2H")  # a file's own header
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \}\s*"
)


def arrays(memory: memoryview) -> dict[str, np.ndarray]:
    """Views on the arrays of an npz file, by name; they may be unaligned.

    Raises:
        ValueError: not a zip file, or a member that is compressed, in Fortran order, big-endian or
            no array of numbers.
    """
    try:
        # numpy writes no comment, so the end record is the last 22 bytes.
        mark, *_, count, _, offset, _ = _END.unpack_from(memory, len(memory) - _END.size)
        if mark != b"PK\5\6":
            raise ValueError("no zip file: its end is missing")
        views = {}
        # By the central directory: numpy leaves the sizes in local headers to a zip64 field.
        for _ in range(count):
            entry = _ENTRY.unpack_from(memory, offset)
            lengths, name_start = entry[10:13], offset + _ENTRY.size
            name = bytes(memory[name_start : name_start + lengths[0]]).decode("ascii")
            if entry[0] != b"PK\1\2" or entry[4] or not name.endswith(".npy"):
                raise ValueError(
                    f"member '{name}' is compressed or no array; wanted uncompressed .npy members"
                )
            view, start, end = _array(memory, name, entry[16])
            if end - start != entry[9]:
                raise ValueError(
                    f"'{name}': got {entry[9]} bytes, wanted {end - start} for shape {view.shape}"
                )
            views[name[:-4]] = view
            offset = name_start + sum(lengths)
        return views
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not a whole npz file: {error}") from None


def leading(memory: memoryview, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Views on the first arrays of an npz file of which only the beginning is at hand.

    Raises:
        ValueError: it begins with other arrays, or ends before theirs do.
    """
    views, local = {}, 0
    try:
        for name in names:
            _, *_, name_length, _ = _LOCAL.unpack_from(memory, local)
            first = local + _LOCAL.size
            if bytes(memory[first : first + name_length]) != f"{name}.npy".encode():
                raise ValueError(f"wanted '{name}' at its beginning")
            views[name], _, local = _array(memory, name, local)
    except struct.error as error:
        raise ValueError(f"not a whole npz file: {error}") from None
    return views


def _array(memory: memoryview, name: str, local: int) -> tuple[np.ndarray, int, int]:
    """View on the member whose own header is at `local`; where its .npy file begins and ends."""
    mark, *_, name_length, extra_length = _LOCAL.unpack_from(memory, local)
    # The extra field of the local header may be longer than that of the central directory.
    start = local + _LOCAL.size + name_length + extra_length
    # An .npy file: 6 bytes of magic, 2 of version, 2 of header length, the header, the numbers.
    (length,) = struct.unpack_from("<H", memory, start + 8)
    stated = _kind(bytes(memory[start + 10 : start + 10 + length]))
    if mark != b"PK\3\4" or bytes(memory[start : start + 8]) != b"\x93NUMPY\1\0" or stated is None:
        raise ValueError(f"'{name}': wanted a little-endian .npy array of numbers in C order")
    dtype, shape = stated
    count, first = math.prod(shape), start + 10 + length
    view = np.frombuffer(memory, dtype, count, first).reshape(shape)
    return view, start, first + view.nbytes


@lru_cache(maxsize=4096)
def _kind(header: bytes) -> tuple[np.dtype, tuple[int, ...]] | None:
    """Read dtype and shape from the header of an array; None if it is of another kind.

    Cached: samples of equal size have equal headers.
    """
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    shape = tuple(int(n) for n in match[2].decode().split(",") if n.strip())
    return np.dtype(match[1].decode()), shape
