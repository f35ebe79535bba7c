"""All stages one after another on a handful of clips: every joint of the pipeline, nothing about accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mirasol.cli.main import main
from mirasol.pipeline.stages import STAGES

ROOT = Path(__file__).parents[2]
PHASE = {"steps": 2, "batch_size": 4, "warmup": 1, "checkpoint_every": 2, "val_clips": 4}
SMALL: dict[str, dict[str, Any]] = {
    "shards": {"workers": 1},
    "training": {"threads": 1, "workers": 0},
    "pretrain": PHASE,
    "audio_pretrain": PHASE,
    "finetune": PHASE,
    "evaluate": {"resamples": 100, "gallery": 2},
    "export": {"clips": 2},
    "benchmark": {"rounds": 3, "clips": 1, "threads": 1},
}


def mirasol(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command line in this process; its exit status."""
    monkeypatch.setattr("sys.argv", ["mirasol", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_every_joint_of_the_pipeline_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        params[section].update(values)
    yaml.dump(params, tmp_path / "params.yaml")

    assert mirasol(monkeypatch, "world", "--clips", "12", "--workers", "1") == 0
    for name in STAGES:
        assert mirasol(monkeypatch, "stage", name) == 0, f"stage {name}: {capsys.readouterr().err}"
    assert mirasol(monkeypatch, "report") == 0
    assert mirasol(monkeypatch, "data", "check") == 0
    assert mirasol(monkeypatch, "data", "look", "--phase", "finetune", "--clips", "2", "--out", "look.png") == 0
    assert (tmp_path / "look.png").is_file()

    reports = {path.name for path in (tmp_path / "reports").iterdir()}
    written = {"shards", "pretrain", "audio_pretrain", "finetune", "eval", "parity", "streaming", "metrics"}
    assert reports == {f"{name}.json" for name in written}
    assert (tmp_path / "runs/latency.json").is_file()
    published = {path.name: path.read_bytes() for path in (tmp_path / "reports").iterdir()}
    for name in ("evaluate", "export", "benchmark", "reports"):
        assert mirasol(monkeypatch, "stage", name) == 0, f"stage {name}: {capsys.readouterr().err}"
    again = {path.name for path in (tmp_path / "reports").iterdir() if path.read_bytes() != published[path.name]}
    assert again == set(), "a second run changes what git holds"
    parity = json.loads((tmp_path / "reports" / "parity.json").read_text(encoding="utf-8"))
    assert parity["max_relative"] <= 1e-5
    assert "<html" in (tmp_path / "build" / "report" / "index.html").read_text(encoding="utf-8")

    clip = next((tmp_path / "data" / "media" / "test").rglob("*.mp4"))
    capsys.readouterr()
    assert mirasol(monkeypatch, "answer", str(clip), "What colour is the large one?") == 0
    assert capsys.readouterr().out.endswith("\n")
