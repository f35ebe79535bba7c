"""The one screen at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mirasol.pipeline.outcome import outcome, screen

CELL = {"exact_match": 0.933, "ci95": [0.927, 0.939], "chance": 0.228, "n": 8821, "clips": 900}
WEAK = {"exact_match": 0.711, "ci95": [0.682, 0.74], "chance": 0.167, "n": 900, "clips": 600}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project after a run; the current folder."""
    monkeypatch.chdir(tmp_path)
    report = {"split": "test", "overall": CELL, "families": {"colour": CELL, "flash_of_sound": WEAK}}
    prediction = {"prompt": "what is seen?", "answers": ["dog"], "predicted": {"unchanged": "dog"}, "example_id": "q1"}
    texts: dict[str, Any] = {
        "build/reports/eval.json": report,
        "build/report/index.html": "",
        "build/bundle/contract.json": {},
        "build/evaluate/predictions.jsonl": prediction,
        "data/manifest.jsonl": {"id": "q1", "media": "media/a clip.mp4"},
        "data/media/a clip.mp4": "",
    }
    for name, value in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(value) + "\n")
    return tmp_path


def lines(root: Path, **stages: str) -> dict[str, str]:
    """The screen, by the name of each line."""
    text = screen(outcome(root, stages or {"shards": "ran", "export": "unchanged"}, 785.0))
    return {line.split()[0]: line[9:] for line in text.splitlines()}


def test_the_screen_says_result_weakest_family_and_paths(project: Path) -> None:
    found = lines(Path())
    assert found.pop("next").endswith("mirasol answer 'data/media/a clip.mp4' 'what is seen?'")
    assert found == {
        "stages": "1 ran, 1 up to date, in 13:05",
        "result": "93.3 % right (95 % interval 92.7 to 93.9 %; chance 22.8 %), 8,821 questions about 900 clips "
        "of the split test",
        "weakest": "flash_of_sound: 71.1 % right (95 % interval 68.2 to 74.0 %; chance 16.7 %), 900 questions",
        "report": "build/report/index.html",
        "bundle": "build/bundle",
    }


def test_a_workspace_shows_its_paths(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    found = lines(project)
    assert found["bundle"] == f"{project.name}/build/bundle"
    assert found["next"].endswith(f" --bundle {project.name}/build/bundle")


def test_a_project_without_results_has_no_empty_lines(tmp_path: Path) -> None:
    assert set(lines(tmp_path)) == {"stages"}


def test_few_clips_are_said_to_be_few(project: Path) -> None:
    path = project / "build/reports/eval.json"
    path.write_text(path.read_text().replace('"clips": 900', '"clips": 12'))
    assert lines(Path())["result"].endswith("fewer than 30 clips say little")
