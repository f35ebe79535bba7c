from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from mirasol.evaluation.report.charts import POINTS, Series, line_chart, smooth, thin, ticks
from mirasol.evaluation.report.html import number


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (1234.5, "1,234"), (0.98765, "0.988"), (12.0, "12"), (3.1e-6, "3.1e-6"), (38.25, "38.2"), (100, "100")],
)
def test_numbers_have_three_figures(value: float, expected: str) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.037), (-3, 12), (5, 5), (0, 0), (0, 1e6)])
def test_ticks_span_the_range(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8


def test_smoothing_is_the_mean_of_the_last_values() -> None:
    assert smooth([1, 3, 5, 7], 2) == [1, 2, 4, 6]


def test_thinning_keeps_the_last_point_and_drops_what_is_not_finite() -> None:
    kept = thin(Series("a", range(1000), [float("nan"), *range(1, 1000)], 0))
    assert len(kept.x) == POINTS
    assert kept.x[0] == 1
    assert kept.x[-1] == 999


def test_a_chart_is_well_formed() -> None:
    chart = line_chart("loss <a>", [Series('"x" & y', [1, 2], [3, -1], 0), Series("", [1], [2], 1)], end=2)
    root = ET.fromstring(chart)
    assert len(root.findall(".//polyline")) == 2


def test_a_chart_without_points_is_nothing() -> None:
    assert line_chart("loss", [Series("a", [], [], 0)], end=1) == ""
