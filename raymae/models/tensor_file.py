"""Files of tensors: safetensors, a header that says which tensors there are, and their bytes. Nothing in it is run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

MAX_HEADER = 25_000_000  # bytes, of a hundred thousand tensors


def saved(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """The contents of a file, the same for the same tensors and texts.

    Args:
        tensors: By name, on whatever device.
        about: Texts in its header.
    """
    import safetensors.torch

    return safetensors.torch.save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
                                  dict(about))


def header_length(first: bytes, size: int) -> int:
    """The bytes of a header, by those before it, which say how many they are.

    Args:
        first: The file's first 8 bytes.
        size: Of the file.

    Raises:
        ValueError: They are not those of such a file.
    """
    length = int.from_bytes(first, "little")
    if len(first) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ValueError(f"not a whole safetensors file: {size:,} bytes that begin with a header of {length:,}; a "
                         f"header has at most {MAX_HEADER:,} bytes, and fits in its file")
    return length
