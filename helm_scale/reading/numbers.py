"""Numbers that users write: plain ones, numpy's, and arrays or lists of one."""

import reprlib
from typing import Any

import numpy as np


def number(value: Any, where: str) -> float:
    """Read a finite real number.

    Args:
        value: a number, or an array or list that holds one. where: file, frame and key, for errors.
    Raises:
        ValueError: None, text, a bool, several numbers, NaN or infinity; names `where`.
    """
    array = _real(value)
    if array is None or array.size != 1:
        raise ValueError(f"{where}: got {_shown(value)}, wanted a number")
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: got {_shown(value)}, wanted a finite number")
    return float(array.item())


def integer(value: Any, where: str) -> int:
    """Read an integer; 2.0 is one.

    Raises:
        ValueError: as `number`, and a fraction; names `where`.
    """
    array = _real(value)
    if array is None or array.size != 1 or not float(array.item()).is_integer():
        raise ValueError(f"{where}: got {_shown(value)}, wanted an integer")
    return int(array.item())


def numbers(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Read finite real numbers in an array of this shape, float64; axes of length 1 may differ.

    Raises:
        ValueError: another shape, or something that is no finite real number; names `where`.
    """
    array = _real(value)
    if array is None:
        raise ValueError(f"{where}: got {_shown(value)}, wanted numbers of shape {shape}")
    if _long_axes(array.shape) != _long_axes(shape):
        raise ValueError(f"{where}: got shape {array.shape}, wanted {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: got NaN or infinity, wanted {shape} finite numbers")
    return array.astype(np.float64).reshape(shape)


def _real(value: Any) -> np.ndarray | None:
    """An array of integers or floats, or None where the value is of another kind."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # ragged lists; tensors that need a gradient
        return None
    return array if array.dtype.kind in "iuf" else None


def _long_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def _shown(value: Any) -> str:
    """A value in a message: text in quotes, long arrays cut."""
    return reprlib.repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
