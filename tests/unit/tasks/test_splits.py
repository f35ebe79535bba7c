"""Splits that the annotations leave open: quotas of few groups, hashes of many."""

from __future__ import annotations

from collections import Counter

import pytest

from mirasol.tasks.base.splits import FEW, split_of, splits_of


def grouped(count: int, answers: int = 2) -> dict[str, list[str]]:
    return {f"clip {n}.mp4": [f"answer {n % answers}"] for n in range(count)}


@pytest.mark.parametrize(("count", "quotas"), [(3, (1, 1, 1)), (30, (20, 4, 6)), (200, (130, 30, 40))])
def test_few_groups_fill_quotas(count: int, quotas: tuple[int, int, int]) -> None:
    found = Counter(splits_of(grouped(count)).values())
    assert (found["train"], found["val"], found["test"]) == quotas


@pytest.mark.parametrize("count", [20, 60, 150])
def test_each_answer_gets_its_share(count: int) -> None:
    groups = grouped(count)
    tested = Counter(groups[name][0] for name, split in splits_of(groups).items() if split == "test")
    assert abs(tested["answer 0"] - tested["answer 1"]) <= 1


def test_a_rare_answer_is_split_too() -> None:
    groups = {f"{n}": ["rare" if n < 20 else "usual"] for n in range(200)}
    assert Counter(s for g, s in splits_of(groups).items() if groups[g] == ["rare"])["test"] == 4


def test_many_groups_go_by_their_hash() -> None:
    groups = grouped(FEW)
    assert splits_of(groups) == {name: split_of(name) for name in groups}


def test_the_order_of_the_rows_changes_nothing() -> None:
    groups = grouped(50)
    assert splits_of(dict(reversed(groups.items()))) == splits_of(groups)


def test_groups_with_several_answers_are_not_stratified() -> None:
    found = Counter(splits_of({f"{n}": ["red", "left"] for n in range(40)}).values())
    assert found == {"train": 26, "val": 6, "test": 8}


def test_a_single_group_trains() -> None:
    assert splits_of({"a": ["x"]}) == {"a": "train"}
