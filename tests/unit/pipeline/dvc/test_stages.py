"""dvc.yaml as typed stages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc.dvc import Stage, check_changes, downstream, read_stages, select

DVC_YAML = """
stages:
  last: {cmd: x, deps: [build/mid/part.txt], params: [last, other.yaml: [a, b]]}
  mid: {cmd: x, deps: [build/first], outs: [build/mid: {persist: true}], metrics: [reports/m.json: {cache: false}]}
  first: {cmd: x, deps: [data], outs: [build/first]}
  alone: {cmd: x, deps: [build/firstborn]}
"""


@pytest.fixture
def stages(tmp_path: Path) -> list[Stage]:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    return read_stages(tmp_path / "dvc.yaml")


def test_order_follows_the_data(stages: list[Stage]) -> None:
    assert [s.name for s in stages] == ["first", "mid", "last", "alone"]


def test_fields(stages: list[Stage]) -> None:
    assert stages[1] == Stage("mid", ("build/first",), ("build/mid", "reports/m.json"), (), ("reports/m.json",))
    assert stages[2].params == ("last", "other.yaml:a", "other.yaml:b")


def test_select_takes_what_a_target_needs(stages: list[Stage]) -> None:
    assert [s.name for s in select(stages, ["mid"])] == ["first", "mid"]
    assert select(stages, None) == stages


def test_unknown_target_names_the_nearest(stages: list[Stage]) -> None:
    with pytest.raises(MirasolError, match="did you mean `first`"):
        select(stages, ["frist"])


def test_downstream(stages: list[Stage]) -> None:
    assert downstream(stages, ["first"]) == {"mid", "last"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {a: {cmd: x, deps: [p], outs: [q]}, b: {cmd: x, deps: [q], outs: [p]}}", "in a circle: a, b"),
        ("stages: {a: {foreach: [1], do: {cmd: x}}}", "`a`: `foreach` is not read"),
        ("stages: {a: {cmd: x, deps: ['${item}']}}", "write the path out"),
        ("stages: [", "not YAML"),
        ("steps: {}", "expected a mapping `stages`"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(MirasolError, match=message):
        read_stages(tmp_path / "dvc.yaml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="no such file; run in the project's folder"):
        read_stages(tmp_path / "dvc.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("finetune.lrr=1", "states no key `finetune.lrr`; did you mean `finetune.lr`?"),
        ("finetune.lr", "expected KEY=VALUE"),
        ("finetune.lr=", "expected KEY=VALUE"),
    ],
)
def test_a_change_to_a_key_that_is_none_is_refused(tmp_path: Path, change: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text("finetune: {lr: 1e-3}\n")
    with pytest.raises(MirasolError, match=re.escape(message)):
        check_changes(tmp_path / "params.yaml", ["finetune.lr=2", change])


def test_known_and_added_keys_are_taken(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("finetune: {lr: 1e-3}\n")
    check_changes(tmp_path / "params.yaml", ["finetune.lr=2", "+finetune.dropout=0.1"])
