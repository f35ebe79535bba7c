"""Line charts as inline SVG: no script is needed to read them, a small one shows values under the pointer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from mirasol.evaluation.report.html import number, render

WIDTH, HEIGHT = 360, 190  # about one to one on a phone and in three columns, so that letters keep their size
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 10, 24
POINTS = 160  # points kept per line


@dataclass(frozen=True)
class Series:
    """One line: its name in the legend ("" for none), its points, and the style class ``tone-<tone>``."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    tone: int


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values that span ``low`` to ``high``: the first is <= low, the last >= high."""
    span = (high - low) or abs(high) or 1.0
    raw = span / count
    scale = 10 ** math.floor(math.log10(raw))
    step = next(scale * m for m in (1, 2, 2.5, 5, 10) if scale * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Mean over a window of up to ``width`` values that ends at each, to read a noisy loss."""
    result, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - width] if i >= width else 0.0)
        result.append(total / min(i + 1, width))
    return result


def thin(series: Series) -> Series:
    """At most ``POINTS`` evenly spaced points, the last one among them; values that are not finite are left out."""
    pairs = [(x, y) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if len(pairs) > POINTS:
        pairs = [pairs[round(i * (len(pairs) - 1) / (POINTS - 1))] for i in range(POINTS)]
    return Series(series.name, [x for x, _ in pairs], [y for _, y in pairs], series.tone)


def line_chart(title: str, series: Sequence[Series], *, end: float, percent: bool = False) -> str:
    """A figure with legend, axes that start at 0, and one line per series; those named are drawn on top.

    ``end`` is the last step of the axis. ``percent`` draws shares on a fixed axis of 0 to 100 %. Series without
    points are left out; without any the result is an empty string.
    """
    drawn = sorted((kept for kept in map(thin, series) if kept.x), key=lambda s: (bool(s.name), -s.tone))
    if not drawn:
        return ""
    x_high = max(end, *(max(s.x) for s in drawn)) or 1
    y_ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if percent else ticks(0, max(max(s.y) for s in drawn))
    y_low, y_high = min(0.0, *(min(s.y) for s in drawn)), y_ticks[-1]
    if y_low < 0:
        y_ticks = ticks(y_low, y_high)
        y_low, y_high = y_ticks[0], y_ticks[-1]
    x_ticks = [t for t in ticks(0, x_high, 3) if t <= x_high * 1.001]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / x_high * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for s in drawn:
        points = " ".join(f"{x},{y}" for x, y in (place(a, b) for a, b in zip(s.x, s.y, strict=True)))
        style = "line" if s.name else "line thin"
        if len(s.x) == 1:  # a line of no length with round ends is a dot
            points, style = f"{points} {points}", f"{style} dot"
        lines.append({"style": style, "tone": s.tone, "points": points})
    named = sorted((s for s in drawn if s.name), key=lambda s: s.tone)
    values = [{"x": _short(s.x), "y": _short(s.y)} for s in named]
    box = {"lines": values, "left": LEFT, "right": WIDTH - RIGHT, "high": x_high, "percent": percent}
    return render(
        "chart.html",
        title=title,
        data=json.dumps(box, separators=(",", ":")),
        named=named,
        lines=lines,
        rows=[(place(0, tick)[1], tick) for tick in y_ticks],
        columns=[(place(tick, 0)[0], tick) for tick in x_ticks[1:]],
        written=lambda value: f"{value * 100:.0f}\u202f%" if percent else number(value),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
    )


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
