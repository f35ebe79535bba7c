"""Plain models next to a trained one: what their numbers see, and what the verdict says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shards import TinyShards, tiny_shards  # noqa: F401  (a fixture)

from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.manifest import read_manifest
from mirasol.evaluation.baselines import Sources, baselines, too_few, verdict
from mirasol.evaluation.features import PICTURE, SOUND, features_of, picture_features, sound_features
from mirasol.tasks.scoring.config import EvaluateSpec

SPEC = EvaluateSpec(resamples=200)


def filmed(*, moves: bool, seed: int = 0) -> np.ndarray:
    """YUV frames [2, 4, 72, 48] of a textured wall filmed by a shaking camera, with a square that moves or rests."""
    generator = np.random.default_rng(seed)
    wall = generator.integers(40, 120, (80, 80))
    frames = np.full((8, 72, 48), 128, np.uint8)
    for number in range(8):
        scene = wall.copy()
        left = 20 + 4 * number if moves else 30
        scene[36:44, left : left + 8] = 250
        y, x = generator.integers(13, 19, 2)
        frames[number, :48] = scene[y : y + 48, x : x + 48]
    return frames.reshape(2, 4, 72, 48)


def largest_difference(video: np.ndarray) -> float:
    return float(picture_features(video)[13 + 3])  # of the first amounts: log of the 99th percentile


def test_shaking_is_not_motion() -> None:
    resting, moving = (largest_difference(filmed(moves=moves)) for moves in (False, True))
    assert moving > resting + 1


def test_a_still_picture_has_numbers() -> None:
    assert np.isfinite(picture_features(np.zeros((1, 1, 72, 48), np.uint8))).all()


def test_two_beeps_are_two_onsets() -> None:
    audio = np.full((2, 8, 32), -1.0, np.float32)
    audio[0, 2:4], audio[1, 2:4] = 2.0, 2.0
    assert sound_features(audio)[39] == 2


def test_silence_has_numbers() -> None:
    assert np.isfinite(sound_features(np.full((2, 8, 32), -1.0, np.float32))).all()


def test_an_absent_part_is_missing() -> None:
    absent = np.zeros(2, bool)
    clip = Decoded(None, np.zeros((2, 8, 32), np.float32), absent, ~absent)
    found = features_of(clip)
    assert np.isnan(found[:PICTURE]).all() and np.isfinite(found[PICTURE:]).all() and len(found) == PICTURE + SOUND


def cell(model: float, baseline: float, low: float, high: float) -> dict[str, Any]:
    difference = {"difference": model - baseline, "ci95": [low, high]}
    scores = {"model": {"exact_match": model}, "majority": {"exact_match": baseline}, "linear": {"exact_match": 0.82}}
    return scores | {"minus_majority": difference, "minus_linear": difference}


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.1, 0.3, "adds 20.0 points over the majority answer (60.0 % against 40.0 %"),
        (-0.1, 0.3, "adds nothing over the majority answer (60.0 % against 40.0 %, difference -10.0 to +30.0 points)"),
        (-0.5, -0.1, "adds nothing over the majority answer and is worse"),
    ],
)
def test_the_verdict_follows_the_interval(low: float, high: float, says: str) -> None:
    assert says in verdict(cell(0.6, 0.4, low, high))


def test_few_clips_are_no_headline() -> None:
    assert too_few(30, "test") == ""
    assert "29 clip(s) of the split test, 30 needed" in too_few(29, "test")


def test_a_right_model_beats_both_and_a_silent_one_neither(tiny_shards: TinyShards) -> None:  # noqa: F811
    examples = read_manifest(tiny_shards.data / "manifest.jsonl")
    rows = asked(tiny_shards.data)
    perfect = baselines(rows, examples, Sources(tiny_shards.folder), SPEC)["overall"]
    mute = [row | {"predicted": {"unchanged": None}} for row in rows]
    wrong = baselines(mute, examples, Sources(tiny_shards.folder), SPEC)["overall"]
    assert perfect["model"]["exact_match"] == 1.0 and wrong["minus_linear"]["difference"] <= 0
    assert perfect["linear"] == wrong["linear"], "equal inputs give equal baselines"


def asked(data: Path) -> list[dict[str, Any]]:
    """The rows of a model that is always right."""
    from mirasol.data.manifest import clips_of

    chosen = [e for e in read_manifest(data / "manifest.jsonl") if e.split == "test" and e.task == "qa"]
    return [
        {"clip": clip.key, "group": e.group, "prompt": e.prompt, "answers": list(e.answers),
         "predicted": {"unchanged": e.answers[0]}}
        for clip in clips_of(chosen) for e in clip.examples
    ]  # fmt: skip
