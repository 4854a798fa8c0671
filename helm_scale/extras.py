"""Optional packages: a missing one is named with the line that installs it."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package is missing that an extra of helm_scale brings."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import what an extra of pyproject.toml brings: `with needs("dft"): import pyscf`.

    Raises:
        MissingExtraError: a package is not installed; names it and the line that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is not installed; run pip install 'helm_scale[{extra}]'"
        ) from error
