"""The model computes the stored golden tensors (make_model.py in this folder writes them)."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.model import golden_case, relative_error

from mirasol.model.config import COMBINERS


@pytest.mark.parametrize("combiner", COMBINERS)
def test_model_is_what_it_was(combiner):
    golden = load_file(Path(__file__).parent / f"model_{combiner}.safetensors")
    case = golden_case(combiner)
    assert set(case) == set(golden)
    for name, tensor in golden.items():
        assert relative_error(case[name], tensor) < 1e-4, name
