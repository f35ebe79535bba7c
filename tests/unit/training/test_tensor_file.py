"""A streamed safetensors file has the bytes of the library's own."""

from __future__ import annotations

import io

import pytest
import torch
from safetensors.torch import save

from mirasol.training.tensor_file import TYPES, write_tensors


@pytest.mark.parametrize("metadata", [None, {"first": '{"a": 1}'}])
def test_the_bytes_are_those_of_safetensors(metadata: dict[str, str] | None) -> None:
    tensors = {f"x{n}/é.{kind}": torch.arange(n * 3).view(3, n).to(kind) for n, kind in enumerate(reversed(TYPES))}
    tensors |= {"scalar": torch.tensor(3.0), "empty": torch.empty(0, 4), 'q"\n': torch.ones(1)}
    file = io.BytesIO()
    write_tensors(file, tensors, metadata)
    assert file.getvalue() == save(tensors, metadata)
