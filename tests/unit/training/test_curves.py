"""Curves after a resume hold each step once."""

from __future__ import annotations

from pathlib import Path

from mirasol.training.curves import CurveFile, read_lines


def steps(path: Path) -> list[int]:
    return [line["step"] for line in read_lines(path)]


def test_lines_after_the_checkpoint_are_dropped_at_the_start(tmp_path: Path) -> None:
    curves = CurveFile(tmp_path / "c.jsonl")
    curves.start(0)
    for step in (10, 20, 30):
        curves.append({"step": step}, sync=False)
    curves.start(20)
    curves.append({"step": 30}, sync=True)
    assert steps(curves.path) == [10, 20, 30]


def test_a_line_that_a_kill_cut_off_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n{"step": 3')
    CurveFile(path).start(20)
    assert path.read_text() == '{"step": 10}\n{"step": 20}\n'


def test_a_run_from_the_beginning_starts_with_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"step": 10}\n')
    CurveFile(path).start(0)
    assert read_lines(path) == []
