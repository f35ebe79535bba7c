"""The logic of `mirasol label`: order, quota, groups, and a file that is complete after every label."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.media import write_media

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import read_manifest
from mirasol.serve import labels as module
from mirasol.serve.annotations import SHARES, Annotations, choose_rule, choose_splits, clean_answer, group_of
from mirasol.serve.labels import Labels, Proposal
from mirasol.tasks.base.splits import QUOTAS
from mirasol.tasks.generic import import_generic

QUESTION = "Which sound is heard?"
Open = Callable[..., Labels]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty files that only look like clips."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(30):
        (clips / f"{chr(97 + number // 3)}_{number % 3}.mp4").write_bytes(b"")
    return clips


@pytest.fixture
def opened(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Labels of the folder, looked at without decoding."""

    class Ok:
        kind = "ok"

    monkeypatch.setattr(module, "probe_file", lambda path, upto: Ok())
    held: list[Labels] = []

    def make(**keywords: object) -> Labels:
        found = Labels(folder, tmp_path / "annotations.csv", QUESTION, **keywords)  # type: ignore[arg-type]
        held.append(found)
        for media in list(found._clips):
            if media not in found._done:
                found.look_at(media)
        return found

    yield make
    for labels in held:
        labels.close()


def on_show(labels: Labels) -> str:
    clip = labels.state()["clip"]
    return str(clip["media"]) if clip else ""


def test_unsure_clips_of_train_come_first_and_others_at_random(opened: Open) -> None:
    def propose(path: Path) -> Proposal:
        return Proposal("bell", 0.9, margin=ord(path.name[0]) + int(path.stem[-1]) / 10)

    labels = opened(propose=propose)
    order: dict[str, list[str]] = {split: [] for split in SHARES}
    while media := on_show(labels):
        order[labels.state()["clip"]["split"]].append(media)
        labels.label(media, "bell")
    assert order["train"] == sorted(order["train"])
    assert order["test"] != sorted(order["test"])


def test_every_few_labels_keep_the_quota(opened: Open) -> None:
    labels = opened()
    for _ in range(10):
        labels.label(on_show(labels), "bell")
    assert labels.state()["splits"] == {"train": 6, "val": 2, "test": 2}


def test_a_label_is_on_disk_at_once_and_a_restart_continues(opened: Open, tmp_path: Path) -> None:
    labels = opened()
    first = on_show(labels)
    labels.label(first, "bell")
    assert first in (tmp_path / "annotations.csv").read_text()
    labels.close()
    again = opened()
    assert (again.state()["labelled"], again.answers, on_show(again) == first) == (1, ["bell"], False)


def test_undo_takes_back_labels_and_skips_also_after_a_restart(opened: Open) -> None:
    labels = opened()
    first = on_show(labels)
    labels.label(first, "bell")
    second = on_show(labels)
    labels.skip(second)
    labels.undo()
    assert on_show(labels) == second
    labels.close()
    again = opened()
    again.undo()
    assert (on_show(again), again.state()["labelled"], again.annotations.rows) == (first, 0, [])
    with pytest.raises(MirasolError, match="nothing is left"):
        again.undo()


def test_a_second_tab_cannot_label_another_clip(opened: Open) -> None:
    labels = opened()
    first = on_show(labels)
    labels.label(first, "bell")
    with pytest.raises(MirasolError, match="not the clip on show"):
        labels.label(first, "buzz")


def test_without_a_clip_on_show_nothing_is_labelled(opened: Open) -> None:
    labels = opened()
    while media := on_show(labels):
        labels.skip(media)
    with pytest.raises(MirasolError, match="not the clip on show"):
        labels.label("", "bell")


def test_a_failure_at_one_clip_leaves_the_others(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = Labels(folder, tmp_path / "annotations.csv", QUESTION)

    def look_at(media: str) -> None:
        if media == "a_0.mp4":
            raise RuntimeError("out of luck")
        labels._clips[media] = module.replace(labels._clips[media], state=module.READY)

    monkeypatch.setattr(labels, "look_at", look_at)
    labels._look()
    state = labels.state()
    labels.close()
    assert (state["waiting"], state["unreadable"]) == (0, [{"media": "a_0.mp4", "reason": "out of luck"}])


def test_the_clip_on_show_stays_while_others_become_ready(opened: Open) -> None:
    labels = opened(propose=lambda path: Proposal("bell", 0.9, 0.5))
    shown = on_show(labels)
    labels._propose = lambda path: Proposal("bell", 0.1, 0.0)
    for media in list(labels._clips):
        labels.look_at(media)
    assert on_show(labels) == shown


def test_other_questions_keep_their_rows_and_the_group_its_split(opened: Open, folder: Path, tmp_path: Path) -> None:
    labels = opened()
    media = on_show(labels)
    labels.label(media, "bell")
    labels.close()
    other = Labels(folder, tmp_path / "annotations.csv", "Is it loud?")
    try:
        other.look_at(media)
        assert on_show(other) == media
        other.label(media, "yes")
        assert len({(row.group, row.split) for row in other.annotations.rows}) == 1
        assert [row.prompt for row in other.annotations.rows] == [QUESTION, "Is it loud?"]
    finally:
        other.close()


def test_a_file_that_cannot_be_read_is_listed_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"no video")
    labels = Labels(tmp_path / "clips", tmp_path / "a.csv", QUESTION)
    try:
        labels.look_at("bad.mp4")
        state = labels.state()
    finally:
        labels.close()
    assert (state["clip"], state["total"], state["unreadable"][0]["media"]) == (None, 0, "bad.mp4")


def test_two_programs_cannot_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    held = Annotations(path)
    code = f"from mirasol.serve.annotations import *; Annotations(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    held.close()
    assert "in use by another `mirasol label`" in done.stderr
    Annotations(path).close()


def test_a_file_changed_meanwhile_is_not_overwritten(opened: Open, tmp_path: Path) -> None:
    labels = opened()
    labels.label(on_show(labels), "bell")
    path = tmp_path / "annotations.csv"
    path.write_text(path.read_text().replace("bell", "gong"))
    with pytest.raises(MirasolError, match="another program changed it"):
        labels.label(on_show(labels), "buzz")
    assert "gong" in path.read_text()
    assert labels.state()["labelled"] == 1


def test_all_wrong_rows_are_one_error_and_the_lock_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    head = "media,prompt,answers,group,split\n"
    path.write_text(head + "a.mp4,q,bell,a,trian\nb.mp4,q,bell,b,val\nb.mp4,q,buzz,b,test\n")
    with pytest.raises(MirasolError) as caught:
        Annotations(path)
    text = str(caught.value)
    assert ":2: split 'trian'" in text and ":4: group 'b'" in text and ":4: b.mp4 has a label" in text
    path.write_text(head)
    Annotations(path).close()


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text("media,answers\na.mp4,bell\n")
    with pytest.raises(MirasolError, match="choose another file with --out"):
        Annotations(path)


def test_labels_of_another_folder_are_refused(opened: Open, folder: Path) -> None:
    labels = opened()
    media = on_show(labels)
    labels.label(media, "bell")
    labels.close()
    (folder / media).unlink()
    with pytest.raises(MirasolError, match=f"{media} the first"):
        opened()


def test_answers_are_one_set_whatever_their_capitals_and_spaces() -> None:
    assert clean_answer("  Church   bell ", ["church bell"]) == "church bell"
    for wrong in ("", "  ", "a|b", "x" * 201):
        with pytest.raises(MirasolError, match="expected 1 to 200"):
            clean_answer(wrong, [])


def test_recordings_are_found_by_name_or_each_file_is_one() -> None:
    parts = [f"{day}/walk_{number:03d}.mp4" for day in "abcde" for number in range(4)]
    assert choose_rule(parts, []) == "name"
    assert group_of("a/walk_003.mp4", "name") == group_of("a/walk-4.mp4", "name") == "a/walk"
    assert group_of("monday/001.mp4", "name") == group_of("monday/x.mp4", "folder") == "monday"
    assert choose_rule([f"IMG_{number:04d}.mp4" for number in range(20)], []) == "file"


def test_the_rule_of_earlier_labels_stays(opened: Open) -> None:
    labels = opened(group_by="file")
    labels.label(on_show(labels), "bell")
    labels.close()
    again = opened()
    assert again.rule == "file"
    again.close()
    with pytest.raises(MirasolError, match="grouped by file"):
        opened(group_by="name")


def test_the_quota_is_that_of_the_import() -> None:
    assert {split: share for split, share in SHARES.items() if split != "train"} == pytest.approx(QUOTAS)
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_splits_fill_the_quota_by_names_alone_and_known_ones_stay() -> None:
    sizes = {f"g{number}": 1 for number in range(100)}
    splits = choose_splits(sizes, {})
    assert Counter(splits.values()) == {"train": 65, "val": 15, "test": 20}
    assert choose_splits(dict(reversed(sizes.items())), {}) == splits
    assert choose_splits(sizes, {"g0": "test"})["g0"] == "test"
    assert set(choose_splits({"a": 9, "b": 9, "c": 9}, {}).values()) == set(SHARES)


def test_the_file_goes_through_the_import(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for name in ('day, one/"a" 1.mp4', "day, one/b.mp4", "c.mp4"):
        write_media(clips / name, frames=4)
    labels = Labels(clips, tmp_path / "annotations.csv", 'Is it "red", or not?', answers=["yes", "no, blue"])
    try:
        for media, answer in zip(list(labels._clips), ("yes", "no, blue", "yes"), strict=True):
            labels.look_at(media)
            labels.label(on_show(labels), answer)
    finally:
        labels.close()
    import_generic(tmp_path / "annotations.csv", clips, tmp_path / "data")
    rows = read_manifest(tmp_path / "data" / "manifest.jsonl")
    assert {(row.media.removeprefix("media/"), row.prompt, row.split) for row in rows} == {
        (row.media, row.prompt, row.split) for row in labels.annotations.rows
    }
    assert sorted(row.answers[0] for row in rows) == ["no, blue", "yes", "yes"]
