"""reports/metrics.json: few figures, each of which a run compares."""

from __future__ import annotations

from typing import Any

from mirasol.pipeline.figures import FAMILIES, headline


def cell(match: float, n: int = 10) -> dict[str, Any]:
    return {"exact_match": match, "chance": 0.25, "ci95": [0.0, 1.0], "n": n, "clips": 5, "kind": "seen"}


def test_the_main_figures_of_all_phases() -> None:
    evaluation = {"overall": cell(0.9), "novel": cell(0.8), "families": {"b": cell(0.7), "a": cell(0.6)}}
    phases = {
        "pretrain": {"steps": 3, "val": {"exact_match": 1 / 3, "n": 3}},
        "audio_pretrain": {"steps": 3, "val": {"latent": 0.1, "clips": 3}},
        "finetune": {"skipped": "no example"},
    }
    assert headline(evaluation, phases) == {
        "exact_match": 0.9,
        "chance": 0.25,
        "novel": 0.8,
        "families": {"a": 0.6, "b": 0.7},
        "val": {"pretrain": 0.333333},
    }


def test_of_many_families_those_with_the_most_questions_stay() -> None:
    families = {f"f{number:03}": cell(0.5, n=number) for number in range(200)}
    found = headline({"overall": cell(0.5), "novel": None, "families": families}, {})
    assert list(found["families"]) == [f"f{number:03}" for number in range(200 - FAMILIES, 200)]
    assert "novel" not in found
