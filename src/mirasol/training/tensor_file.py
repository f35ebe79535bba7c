"""A safetensors file as a stream: its header, then one tensor after the other, so that no second copy is held.

The bytes are those of ``safetensors.torch.save``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO

import torch
from torch import Tensor

# The names of the format, in the order of the tensors in a file: by type, wide ones first.
TYPES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64", torch.float32: "F32",
    torch.uint32: "U32", torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
ORDER = {kind: number for number, kind in enumerate(TYPES)}


def header_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> tuple[bytes, list[str]]:
    """The header of a file with ``tensors``, of which only shapes and types are read, and their order in the file."""
    names = sorted(tensors, key=lambda name: (ORDER[tensors[name].dtype], name))
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor, begin = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, names


def write_tensor(file: IO[bytes], tensor: Tensor) -> None:
    """Append the bytes of ``tensor``."""
    file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write_tensors(file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``tensors`` as a safetensors file."""
    header, names = header_of(tensors, metadata)
    file.write(header)
    for name in names:
        write_tensor(file, tensors[name])
