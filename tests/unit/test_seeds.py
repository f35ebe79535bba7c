"""benchmarks/seeds.py never takes a result for that of other code or data, and refuses bad settings in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirasol.core import code
from mirasol.core.errors import MirasolError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The module, which is in no package, in a folder with params, shards and a tokenizer."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("training:\n  seed: 1\n  threads: 2\n")
    for name in ("shards/shards.json", "tokenizer/tokenizer.model"):
        path = Path("build", name)
        path.parent.mkdir(parents=True)
        path.write_text("1")
    yield __import__("seeds")
    for name in ("seeds", "common"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", ["params.yaml", "build/shards/shards.json", "build/tokenizer/tokenizer.model"])
def test_other_inputs_are_another_kind(seeds: Any, path: str) -> None:
    before = seeds.kind_of([], "")
    Path(path).write_text("training:\n  seed: 2\n")
    assert seeds.kind_of([], "") != before


def test_other_code_is_another_kind(seeds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seeds.kind_of([], "")
    monkeypatch.setattr(code, "code_hash", lambda entries: "other")
    assert seeds.kind_of([], "") != before


def test_without_shards_it_says_how_to_make_them(seeds: Any) -> None:
    Path("build/shards/shards.json").unlink()
    with pytest.raises(MirasolError, match=r"shards\.json or build/tokenizer is missing: run `dvc repro shards`"):
        seeds.kind_of([], "")


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("foo", "expected SECTION.KEY=VALUE"),
        ("training.threads", "expected SECTION.KEY=VALUE"),
        ("a.b.c=1", "expected SECTION.KEY=VALUE"),
        ("other.threads=1", "params.yaml has no other.threads"),
        ("training.threads=[", "is no YAML value"),
    ],
)
def test_a_bad_setting_is_one_error(seeds: Any, tmp_path: Path, setting: str, text: str) -> None:
    with pytest.raises(MirasolError, match=text):
        seeds.prepare(tmp_path / "run", 1, [setting])


def test_a_run_that_ended_before_a_stage_was_marked_goes_on(seeds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("run").absolute()
    (folder / "build").mkdir(parents=True)
    (folder / "build" / "audio_pretrain").symlink_to(folder / "build" / "pretrain")
    (folder / "done").mkdir()
    for stage in ("pretrain", "finetune", "evaluate"):
        (folder / "done" / stage).touch()
    (folder / "build" / "reports").mkdir(parents=True)
    (folder / "build" / "reports" / "eval.json").write_text("{}")
    assert seeds.train(folder, "audio_pretrain") == {}
