"""Splits of groups that the annotations leave open: by hash where groups are many, by quota where they are few.

A hash keeps a group in its split while a data set grows, but of 30 groups it may leave two to test on. A quota gives
each split its share of each answer; it is a function of all the groups, so another import may move some.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

TENTHS = ("train",) * 8 + ("val", "test")
FEW = 300  # groups; from here on a tenth by hash is about 30, the clips that a score needs
QUOTAS = {"test": 0.2, "val": 0.15}  # of few groups; train has the rest


def split_of(group: str) -> str:
    """The split of one group among many: the same on every machine, 80/10/10."""
    return TENTHS[_number(group) % 10]


def splits_of(answers: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The split of each group, from the answers to its questions.

    Below ``FEW`` groups 65/15/20, in the order of the groups' hashes, for each answer by itself where every group has
    exactly one; else 80/10/10 by hash. From three groups on no split is empty.
    """
    if len(answers) >= FEW:
        return {group: split_of(group) for group in answers}
    strata: dict[str, list[str]] = defaultdict(list)
    single = {group: set(texts) for group, texts in answers.items()}
    alike = all(len(texts) == 1 for texts in single.values())
    for group in sorted(answers, key=lambda name: (_number(name), name)):
        strata[min(single[group]) if alike else ""].append(group)
    # One row of groups, each answer after the other: quotas of the whole then hold within each answer, to one group.
    ordered = [group for name in sorted(strata) for group in strata[name]]
    found = dict.fromkeys(ordered, "train")
    for split, share in QUOTAS.items():
        left = [group for group in ordered if found[group] == "train"]
        count = max(1, round(share * len(ordered))) if len(ordered) > 2 else 0
        for place in range(count):
            found[left[int((place + 0.5) * len(left) / count)]] = split
    return {group: found[group] for group in answers}


def _number(group: str) -> int:
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
