"""The summary of a run in tables and lines."""

from __future__ import annotations

import pytest

from mirasol.pipeline.summary import StageResult, flatten, markdown, number, why


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}


def test_numbers_are_short() -> None:
    assert [number(v) for v in (0.123456, 7, [0.25, 0.75], ["a"], None)] == [
        "0.1235",
        "7",
        "0.25 to 0.75",
        "1 entries",
        "",
    ]


def test_markdown_sets_now_beside_the_last_commit() -> None:
    text = markdown(
        [StageResult("shards", "ran", 2.04)], {"reports/a.json": {"x": 0.5}}, {"reports/a.json": {"x": 0.4}}
    )
    assert "| shards | ran | 2.0 |" in text
    assert "| x | 0.5 | 0.4 |" in text


def test_a_cell_cannot_break_the_table() -> None:
    assert "| note | a\\|b c |  |" in markdown([], {"r.json": {"note": "a|b\nc"}}, {})


def test_many_reasons_are_one_line() -> None:
    assert why(["a", "b"]) == "a, b"
    assert why(list("abcdef")) == "a, b, c, d and 2 more"
    assert why(["changed deps: data modified", "changed deps: params.yaml new"]) == "runs for the first time"


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        (["changed deps: build/shards deleted", "changed deps: data modified"], "data changed"),
        (["changed deps: build/shards deleted"], "a stage before it ran"),
        (["changed outs: build/tokenizer not in cache"], "no build/tokenizer yet"),
        (["changed outs: build/tokenizer deleted"], "no build/tokenizer yet"),
        (["changed deps: params.yaml finetune.lr modified"], "finetune.lr changed"),
        (["changed outs: data modified"], "data modified"),
    ],
)
def test_a_healthy_run_has_no_word_of_deleted_inputs(reasons: list[str], said: str) -> None:
    assert why(reasons) == said
