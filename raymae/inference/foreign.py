"""Read files of weights that others have made, without trusting whoever made them.

Only safetensors are read: a header that says which tensors there are, and their bytes. Nothing in them is run, which
cannot be said of pickles (`.bin`, `.pt`, `.pth`), so those are refused.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from raymae.errors import EncoderError, one_line, shorten
from raymae.models.tensor_file import header_length

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
MAX_CONFIG = 1_000_000  # bytes
MAX_TENSOR_AXES = 8
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".tar")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; its tensors must be of numbers that are finite.

    Raises:
        EncoderError: It is none, or is damaged; says what is wrong.
    """
    import safetensors.torch
    import torch

    if path.suffix in PICKLES:
        raise EncoderError(f"{path}: a pickle, which can run code when it is read, and is not read here; save the "
                           "weights as model.safetensors (`safetensors.torch.save_file`)")
    _check_header(path)
    try:
        weights = safetensors.torch.load_file(path)
    except Exception as error:  # whatever safetensors raises
        raise EncoderError(f"{path}: not a whole safetensors file: {one_line(error)}") from None
    for name, value in weights.items():
        if not value.is_floating_point():
            raise EncoderError(f"{path}: {shorten(name)} holds {value.dtype}, and weights are real numbers")
        if not bool(torch.isfinite(value).all()):
            raise EncoderError(f"{path}: {shorten(name)} holds NaN or infinite numbers")
    return weights


def _check_header(path: Path) -> None:
    size = _size(path)
    try:
        with path.open("rb") as file:
            first = file.read(8)
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        header_length(first, size)
    except ValueError as error:
        raise EncoderError(f"{path}: {error}") from None


def _size(path: Path) -> int:
    """The size of a regular file."""
    try:
        found = path.stat()
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise EncoderError(f"{path}: not a regular file")
    return found.st_size


def read_config(path: Path) -> Mapping[str, Any]:
    """Read the JSON file beside somebody's weights.

    Raises:
        EncoderError: It is no JSON object, or larger than any.
    """
    if (size := _size(path)) > MAX_CONFIG:
        raise EncoderError(f"{path}: {size:,} bytes; a config has at most {MAX_CONFIG:,}")
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: not valid JSON: {one_line(error)}") from None
    if not isinstance(config, dict):
        raise EncoderError(f"{path}: must hold a JSON object, got {type(config).__name__}")
    return config


def file_in(folder: Path, name: str) -> Path | None:
    """A file of somebody's folder; None where there is none.

    Raises:
        EncoderError: A link leads out of the folder. Links of Hugging Face's cache, to the blobs beside its snapshots,
            are followed.
    """
    path = folder / name
    if not os.path.lexists(path):
        return None
    inside = [os.path.realpath(folder)]
    if folder.resolve().parent.name == "snapshots":
        inside.append(os.path.realpath(folder.resolve().parent.parent / "blobs"))
    if not any(os.path.realpath(path).startswith(root + os.sep) for root in inside):
        raise EncoderError(f"{path}: a link that leads out of the folder, to {os.path.realpath(path)}")
    return path


def weights_of(folder: Path) -> dict[str, Tensor]:
    """Read the one safetensors file of a timm or Hugging Face folder.

    Raises:
        EncoderError: There is none that can be read; says what is there in its place.
    """
    path = file_in(folder, WEIGHTS)
    if path is not None:
        return read_weights(path)
    names = sorted(os.listdir(folder))
    pickles = [name for name in names if name.endswith(PICKLES)]
    parts = [name for name in names if name.endswith(".safetensors.index.json")]
    if parts:
        raise EncoderError(f"{folder}: its weights are in several files ({parts[0]}); save them in one: "
                           "`save_pretrained(folder, max_shard_size='100GB')`")
    if pickles:
        raise EncoderError(f"{folder}: its weights are a pickle ({pickles[0]}), which can run code when read, and "
                           f"is not read here; save them as {WEIGHTS} (`safetensors.torch.save_file`)")
    raise EncoderError(f"{folder}: there is no {WEIGHTS} in it")
