"""`reports/metrics.json`: the few figures of a run that `dvc metrics diff` and `dvc exp show` compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAMILIES = 20  # shown; those with the most questions
DIGITS = 6


def headline(evaluation: Mapping[str, Any], phases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The main figures of ``evaluation`` (reports/eval.json) and of the phases' reports.

    Returns:
        ``exact_match``, ``chance``, ``novel`` (groups never seen in training, if the data have some), ``families``
        (exact match by name) and ``val`` (exact match on the validation split by phase, without skipped ones).
    """
    overall, novel = evaluation["overall"], evaluation.get("novel")
    families = sorted(evaluation["families"].items(), key=lambda family: (-family[1]["n"], family[0]))
    found: dict[str, Any] = {"exact_match": overall["exact_match"], "chance": overall["chance"]}
    if novel:
        found["novel"] = novel["exact_match"]
    found["families"] = {name: cell["exact_match"] for name, cell in sorted(families[:FAMILIES])}
    found["val"] = {
        name: report["val"]["exact_match"] for name, report in phases.items() if "exact_match" in report.get("val", {})
    }
    rounded: dict[str, Any] = _rounded(found)
    return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return round(value, DIGITS)
