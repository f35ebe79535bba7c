"""Proposed settings: valid for every kind of data, the whole clip seen, and each choice by the facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mirasol.data.probe import Facts, Question, Spread
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.params.proposal import as_yaml, propose
from mirasol.pipeline.params.schema import Params

PROMPT = "Classify the video audio clip."


def spread(*values: float) -> Spread:
    return Spread.of(values)


def facts(**changed: Any) -> Facts:
    """300 clips of 2 s with picture, sound, and two answers."""
    known: dict[str, Any] = {
        "clips": {"train": 195, "val": 45, "test": 60}, "groups": 300, "tasks": {"qa": 300}, "seconds": spread(2.0),
        "frames_per_second": spread(30.0), "width": spread(640.0), "height": spread(480.0), "seen": 1.0, "heard": 1.0,
        "questions": (Question(PROMPT, 300, (("yes", 150), ("no", 150))),), "texts_per_clip": 1,
        "longest_text": len(PROMPT) + 3, "longest_answer": 3, "characters": 20, "words": frozenset({"yes", "no"}),
    }  # fmt: skip
    return Facts(**known | changed)


SILENT = {"heard": 0.0}
SOUND_ALONE = {"seen": 0.0, "frames_per_second": Spread(), "width": Spread(), "height": Spread()}
KINDS: dict[str, dict[str, Any]] = {
    "30 clips": {"clips": {"train": 20, "val": 4, "test": 6}, "groups": 30},
    "300 clips": {},
    "sound only": SOUND_ALONE | {"seconds": spread(0.14, 0.4, 0.6, 2.1)},
    "silent": SILENT,
    "60 s clips": {"seconds": spread(60.0, 60.0)},
    "unbalanced": {"questions": (Question(PROMPT, 300, (("yes", 290), ("no", 10))),)},
    "mixed lengths": {"seconds": spread(1.0, 5.0, 300.0)},
    "no val split": {"clips": {"train": 3, "test": 1}},
    "captions": {"tasks": {"qa": 10, "caption": 300, "audio_class": 20}, "longest_text": 400},
    "many": {"clips": {"train": 50000, "val": 5000, "test": 5000}, "texts_per_clip": 24},
    "without texts too": {"unlabelled": 600},
    "without texts alone": {
        "clips": {},
        "tasks": {"unlabelled": 600},
        "unlabelled": 600,
        "questions": (),
        "texts_per_clip": 0,
        "longest_text": 0,
        "longest_answer": 0,
        "characters": 0,
        "words": frozenset(),
    },
    "no length stated": {"seconds": Spread()},
    "other letters": {"characters": 4000},
}


START = {"model.preset": "demo"}


def proposed(tmp_path: Path, **changed: Any) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(as_yaml(propose(facts(**changed)), "clips"), encoding="utf-8")
    return load_params(path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_gets_settings_that_are_valid(kind: str, tmp_path: Path) -> None:
    assert proposed(tmp_path, **KINDS[kind]).finetune.steps > 0


@pytest.mark.parametrize("seconds", [0.3, 2.0, 4.0, 10.0, 29.0])
def test_the_whole_clip_is_seen(seconds: float, tmp_path: Path) -> None:
    clip = proposed(tmp_path, seconds=spread(seconds)).clip
    assert clip.sampling == "rate" and clip.chunks * clip.chunk_seconds >= seconds - 1e-3


@pytest.mark.parametrize("seconds", [(60.0,), (1.0, 1.0, 8.0)])
def test_long_clips_and_mixed_lengths_are_seen_spread(seconds: tuple[float, ...], tmp_path: Path) -> None:
    assert proposed(tmp_path, seconds=spread(*seconds)).clip.sampling == "spread"


def test_silent_clips_have_no_sound_to_learn_from(tmp_path: Path) -> None:
    phase = proposed(tmp_path, **SILENT).finetune
    assert (phase.audio_weight, phase.mute, phase.blank, phase.spec_time, phase.spec_mel) == (0, 0, 0, 0, 0)


def test_sound_alone_has_no_picture_to_learn_from(tmp_path: Path) -> None:
    phase = proposed(tmp_path, **SOUND_ALONE).finetune
    assert (phase.video_weight, phase.flip, phase.crop, phase.blank, phase.mute) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize(("words", "flip"), [({"left"}, 0.0), ({"dog"}, 0.5)])
def test_a_picture_is_mirrored_only_where_left_and_right_do_not_matter(
    words: set[str], flip: float, tmp_path: Path
) -> None:
    assert proposed(tmp_path, words=frozenset(words)).finetune.flip == flip


def test_a_clip_begins_later_only_where_no_order_is_asked_for(tmp_path: Path) -> None:
    starts = [propose(facts(words=frozenset(words)), START)["phases.jitter"][0] for words in ({"dog"}, {"first"})]
    assert starts == [1, 0]


def test_two_clips_are_mixed_only_where_no_motion_is_seen(tmp_path: Path) -> None:
    assert [proposed(tmp_path, **kind).finetune.mixup for kind in ({}, SOUND_ALONE)] == [0.0, 0.2]


def test_clips_of_unequal_lengths_are_seen_spread(tmp_path: Path) -> None:
    assert proposed(tmp_path, seconds=spread(1.5, 2.0, 2.0)).clip.sampling == "spread"  # none is refused as too short


def test_weights_to_start_from_see_short_chunks() -> None:
    starts = ({}, START, {"model.preset": "own"})
    assert [propose(facts(), start)["clip.frames_per_chunk"][0] for start in starts] == [32, 4, 32]


def test_few_clips_are_regularised_and_many_are_not(tmp_path: Path) -> None:
    few, many = proposed(tmp_path).finetune, proposed(tmp_path, **KINDS["many"]).finetune
    assert few.dropout > many.dropout == 0 and few.label_smoothing > many.label_smoothing == 0


def test_too_few_val_clips_choose_no_weights(tmp_path: Path) -> None:
    assert [proposed(tmp_path, **KINDS[kind]).finetune.keep for kind in ("300 clips", "30 clips")] == ["best", "last"]


def test_without_a_test_clip_the_val_split_is_scored(tmp_path: Path) -> None:
    assert proposed(tmp_path, clips={"train": 20, "val": 5}).evaluate.split == "val"


def test_pretrain_learns_from_clips_without_texts(tmp_path: Path) -> None:
    pretrain = proposed(tmp_path, unlabelled=600).pretrain
    assert (pretrain.tasks, pretrain.steps * pretrain.batch_size, pretrain.keep) == ("unlabelled", 9600, "last")


def test_pretrain_learns_from_captions_and_clips_without_texts_together(tmp_path: Path) -> None:
    assert proposed(tmp_path, unlabelled=600, tasks={"caption": 9}).pretrain.tasks == "caption unlabelled"


def test_without_captions_and_clips_without_texts_it_says_that_pretrain_learns_nothing() -> None:
    assert "--unlabelled" in propose(facts())["pretrain.tasks"][1]


def test_clips_without_texts_have_two_chunks_at_least(tmp_path: Path) -> None:
    assert proposed(tmp_path, unlabelled=600, seconds=spread(0.1)).clip.chunks > 1


def test_sound_without_texts_is_reconstructed(tmp_path: Path) -> None:
    assert proposed(tmp_path, unlabelled=600, **SOUND_ALONE).model.audio_reconstruction


def test_every_text_fits(tmp_path: Path) -> None:
    params = proposed(tmp_path, longest_text=300, longest_answer=90)
    assert params.tokenizer.max_text >= 300 + 5 and 92 <= params.evaluate.max_answer < params.tokenizer.max_text


def test_weights_to_start_from_decide_the_shapes(tmp_path: Path) -> None:
    chosen = propose(facts(), {"model.combiner": "ttm", "model.num_queries": 4})
    assert chosen["model.combiner"][0] == "ttm" and chosen["finetune.lr"][0] < propose(facts())["finetune.lr"][0]


def test_each_choice_has_a_reason() -> None:
    assert all(why.strip() for _, why in propose(facts()).values())


def test_equal_facts_give_equal_files() -> None:
    assert as_yaml(propose(facts()), "x") == as_yaml(propose(facts()), "x")
