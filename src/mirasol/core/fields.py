"""Parameter fields: dataclass fields with documentation and bounds.

Each package declares the dataclass of its settings; ``mirasol.pipeline.params`` composes them into the schema of
``params.yaml``, checks values against the bounds and writes ``docs/params.md``.
"""

from __future__ import annotations

import dataclasses
from typing import Any


def param(
    default: Any,
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field with its documentation and allowed values in ``metadata``.

    ``default`` is the value of the built-in world; ``params.yaml`` must state it too, so that no setting that shapes
    a result hides in code.
    """
    metadata = {"doc": doc, "ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
