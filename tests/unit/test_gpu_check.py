"""benchmarks/gpu_check.py loses nothing to a section that fails, and its sections run on a CPU."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
MODULES = ("gpu_check", "gpu_sections", "common", "inputs")  # of benchmarks/, which is no package


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, whose children import the sources that are tested."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    yield __import__("gpu_check")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def sections(check: Any) -> Any:
    return sys.modules["gpu_sections"]


def run(check: Any, path: Path, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> list[str]:
    """The sections that a run starts, of which one fails."""
    started: list[str] = []

    def fake(name: str, seconds: float, options: list[str]) -> dict[str, Any]:
        started.append(name)
        return {"ok": name != failing, "seconds": 1.0, "ratios": {f"of_{name}": {"value": 1.0}}}

    monkeypatch.setattr(check, "in_a_process", fake)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--cpu", "--json", str(path)])
    with pytest.raises(SystemExit) as ended:
        check.main()
    assert ended.value.code == bool(failing)
    return started


def test_a_section_that_fails_is_the_only_one_to_run_again(
    check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    assert run(check, path, monkeypatch, failing="compile") == list(check.SECTIONS)
    found = json.loads(path.read_text())
    assert [name for name, figures in found["figures"].items() if not figures["ok"]] == ["compile"]
    assert set(found["ratios"]) == {f"of_{name}" for name in check.SECTIONS}
    assert run(check, path, monkeypatch) == ["compile"]


def test_other_code_runs_everything_again(check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    run(check, path, monkeypatch)
    monkeypatch.setattr(check, "code_hash", lambda *_: "another")
    assert run(check, path, monkeypatch) == list(check.SECTIONS)


def test_eight_minutes_are_enough(check: Any) -> None:
    assert sum(seconds for seconds, _ in check.SECTIONS.values()) <= 480


def test_a_section_without_an_end_is_stopped(check: Any) -> None:
    found = check.in_a_process("attention", 0.01, ["--cpu"])
    assert not found["ok"] and found["error"] == "not done after 0.01 s"


def test_log_mel_runs_in_a_process(check: Any) -> None:
    found = check.in_a_process("log_mel", 300, ["--cpu"])
    assert found["ok"], found
    assert found["relative"]["from_numpy"] < 2e-5


def test_a_value_that_the_host_reads_is_found(sections: Any) -> None:
    places: collections.Counter[str] = collections.Counter()
    with sections.waiting(sections.Setting(torch.device("cpu")), places):
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
    assert places.total() == 2


def test_a_step_of_the_trainer_is_watched(sections: Any) -> None:
    figures: dict[str, Any] = {}
    sections.host_syncs(sections.Setting(torch.device("cpu")), figures)
    assert figures["ratios"]["host_syncs"]["value"] == 0, figures["places"]


def test_tests_are_found_without_pytest(sections: Any) -> None:
    pytest_ = sections.Marks("pytest")
    module: Any = ModuleType("some")

    @pytest_.mark.gpu
    @pytest_.mark.parametrize("a", [1, 2])
    @pytest_.mark.parametrize(("b", "c"), [(3, 4)])
    def test_some(a: int, b: int, c: int) -> None:
        assert a == 1, (b, c)

    module.test_some = test_some
    figures: dict[str, Any] = {"passed": 0, "failed": {}}
    for name, function, values in sections.cases(module):
        sections.run_case(name, lambda function=function, values=values: function(**values), figures)
    assert figures["passed"] == 1
    assert list(figures["failed"]) == ["test_some[3, 4, 2]"]


@pytest.mark.slow
def test_it_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    path = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks/gpu_check.py"), "--cpu", "--rounds", "1", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(path.read_text())
    assert done.returncode == 0, {name: part for name, part in found["figures"].items() if not part["ok"]}
    assert {"graph_breaks", "host_syncs"} <= set(found["ratios"])
    assert len(found["figures"]["profile"]["kernels"]) == 10
