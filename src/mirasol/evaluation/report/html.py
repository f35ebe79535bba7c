"""The templates of the page, and the formats of its figures, which are filters in them."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_BREAKS = re.compile(r"(?<=>)\s*\n\s*|\s*\n\s*(?=<)")  # the layout of a template, which would be drawn as spaces


def number(value: float) -> str:
    """Three figures, thousands with a comma, no exponent unless it is needed."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(value: float) -> str:
    """A share in per cent with one decimal: 0.9871 -> ``98.7 %``, with a narrow space that does not break."""
    return f"{100 * value:.1f}".removesuffix(".0") + "\u202f%"


def interval(cell: Mapping[str, Any]) -> str:
    """The 95 % interval of a cell: ``97.9 to 99.2 %``."""
    low, high = cell["ci95"]
    return f"{percent(low)[:-2]} to {percent(high)}"


def words(name: str) -> str:
    """A key as words: ``audio_pretrain`` -> ``audio pretrain``."""
    return name.replace("_", " ").replace("-", " ")


def signed(value: float) -> str:
    """A difference in points, with its sign."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def shown(value: Any) -> str:
    """A value of a JSON file for a table cell."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10000 else str(value)
    if isinstance(value, list):
        return ", ".join(shown(v) for v in value) if value else "none"
    return str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested mappings with their dotted names."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Names and values for a table; the innermost mappings share a row: ``chunk ms``, ``p50 6.1 · p99 9.3``."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
            rows += leaves(value, f"{name} ")
        else:
            rows.append((name, value))
    return rows


@functools.cache
def environment() -> Environment:
    """The templates: texts are escaped, an unknown name is an error."""
    found = Environment(
        loader=PackageLoader("mirasol.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (percent, interval, words, signed, shown, flat, leaves, number)
    found.filters |= {
        **{one.__name__: one for one in filters},
        "count": lambda value: f"{value:,}",
        "css": lambda value: f"{value:.2f}%",  # of a share in per cent
    }
    return found


def render(template: str, **parts: Any) -> Markup:
    """HTML of one template."""
    return Markup(_BREAKS.sub("", environment().get_template(template).render(parts)))
