"""Writes the golden tensors of the model: PYTHONPATH=tests python tests/golden/make_model.py"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from support.model import golden_case

from mirasol.model.config import COMBINERS

for combiner in COMBINERS:
    save_file(
        {k: v.contiguous() for k, v in golden_case(combiner).items()},
        Path(__file__).parent / f"model_{combiner}.safetensors",
    )
