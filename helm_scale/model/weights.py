"""Reads and writes weights as safetensors, which cannot run code when loaded."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from helm_scale.files import ordinary_mode


def save_weights(
    state: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors under their names; shared or strided storage is copied first.

    The file has the permissions that the user's other files get.
    """
    # safetensors refuses views of one storage, and stores no strides.
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()},
        path,
        metadata,
    )
    path.chmod(ordinary_mode())  # safetensors writes for the owner alone


def load_weights(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read tensors.

    Raises:
        ValueError: the file is missing or not safetensors.
    """
    try:
        return load_file(path, device=str(device))
    except (FileNotFoundError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot read weights: {error}") from None


def load_metadata(path: Path) -> dict[str, str]:
    """Read the text beside the tensors.

    Raises:
        ValueError: the file is missing or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot read weights: {error}") from None


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
