"""The built-in world as an endless stream."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
from support.media import TINY_CLIP

import mirasol
from mirasol.runtime.sources.open import open_stream
from mirasol.runtime.sources.synthetic import SyntheticSource


def test_the_synthetic_source_goes_on() -> None:
    source = open_stream("synthetic", TINY_CLIP)
    assert isinstance(source, SyntheticSource)
    found = [chunk for chunk, _ in zip(source, range(20), strict=False)]  # two clips and a half
    assert [chunk.index for chunk in found] == list(range(20))
    assert all(chunk.video is not None for chunk in found)
    assert not np.array_equal(found[0].video, found[8].video)


def test_no_other_file_of_the_runtime_or_the_service_names_code_of_the_data() -> None:
    source = Path(mirasol.__file__).parent
    imports = {
        (path.name, node.module)
        for package in ("runtime", "serve")
        for path in (source / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mirasol.data")
    }
    assert imports == {("synthetic.py", f"mirasol.data.world.{module}") for module in ("scene", "video")}
