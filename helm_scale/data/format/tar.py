"""Splits the bytes that a sample takes in a tar file into its members, as views.

tarfile reads the same through a file object and copies every content.
"""

from collections.abc import Iterator

BLOCK = 512  # bytes of a tar header, and the unit that contents are padded to
_REGULAR = b"0\0"  # type flags of a plain file
_NAME, _SIZE, _SUM, _TYPE = slice(0, 100), slice(124, 136), slice(148, 156), 156


def members(memory: memoryview) -> dict[str, memoryview]:
    """Split tar headers and contents (POSIX ustar; no end-of-archive blocks) into {name: content}.

    Raises:
        ValueError: a header is damaged, not that of a plain file, or a content is cut short.
    """
    contents = {}
    for name, size, content in _walk(memory):
        if len(content) < size:
            raise ValueError(f"member '{name}' is cut short: got {len(content)} of {size} bytes")
        contents[name] = content
    return contents


def beginning(memory: memoryview) -> dict[str, memoryview]:
    """Split the first bytes of a sample as `members` does; its last content may be cut short."""
    return {name: content for name, _, content in _walk(memory)}


def _walk(memory: memoryview) -> Iterator[tuple[str, int, memoryview]]:
    """Name, stated size and what there is of the content of each member."""
    start = 0
    while start < len(memory):
        name, size = _read(bytes(memory[start : start + BLOCK]))
        start += BLOCK
        yield name, size, memory[start : start + size]
        start += -(-size // BLOCK) * BLOCK  # contents are padded to whole blocks


def _read(header: bytes) -> tuple[str, int]:
    """Read name and size of a member, and check the sum of the header's bytes."""
    try:
        checksum = int(header[_SUM].rstrip(b"\0 "), 8)  # octal text, ended by blanks or zeros
        size = int(header[_SIZE].rstrip(b"\0 "), 8)
        name = header[_NAME].rstrip(b"\0").decode("ascii")
    except ValueError:
        raise ValueError("damaged tar header: no octal size and checksum") from None
    got = sum(header) - sum(header[_SUM]) + 8 * ord(" ")  # its own field counts as blanks
    if len(header) != BLOCK or got != checksum or header[_TYPE] not in _REGULAR:
        raise ValueError(
            f"damaged tar header of '{name}': checksum {got}, wanted {checksum}, or not a plain"
            " file"
        )
    return name, size
