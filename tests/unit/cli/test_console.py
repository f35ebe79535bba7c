"""Colour on a terminal alone, and JSON of one shape."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from mirasol.cli.console import painted, print_paths


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert painted("x", "red", Terminal()) == "\033[31mx\033[0m"
    assert painted("x", "red", io.StringIO()) == "x"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("x", "red", Terminal()) == "x"


def test_written_files_are_an_object_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_paths([Path("a"), Path("b")], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"files": ["a", "b"]}
