"""What chance decides about a training sample, as a function of the seed and the sample's number alone.

Nothing remembers anything between samples: a run that resumes at sample g draws what the first run drew,
with any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mirasol.data.cache import Decoded
from mirasol.data.features import BLACK_UV, BLACK_Y, SILENCE
from mirasol.data.texts import Text

ORDER, SAMPLE, SWAP = range(3)  # streams of random numbers that do not overlap


def permutation(seed: int, epoch: int, clips: int) -> NDArray[np.int64]:
    """The order of ``clips`` clips in an epoch."""
    return np.random.default_rng((seed, ORDER, epoch)).permutation(clips)


def sample_draws(seed: int, sample: int) -> np.random.Generator:
    """The random numbers of training sample ``sample``, counted from the beginning of training."""
    return np.random.default_rng((seed, SAMPLE, sample))


def draw_texts(texts: Sequence[Text], count: int, main: Sequence[str], draws: np.random.Generator) -> list[Text]:
    """At most ``count`` of a clip's texts without repeats, in random order.

    Texts whose task is not in ``main`` are captions beside them: one has a place, if there is room for two.
    """
    first = [t for t in texts if t.task in main]
    beside = [t for t in texts if t.task not in main]
    chosen = [beside[int(i)] for i in draws.permutation(len(beside))[: 1 if count > 1 or not first else 0]]
    return [first[int(i)] for i in draws.permutation(len(first))[: count - len(chosen)]] + chosen


def draw_missing(mute: float, blank: float, draws: np.random.Generator) -> str:
    """``muted``, ``blanked`` or ``none``; never both, so that every sample has something to go by."""
    chance = draws.random()
    return "muted" if chance < mute else "blanked" if chance < mute + blank else "none"


def muted(clip: Decoded) -> Decoded:
    """The clip with digital silence in place of its sound; the sound still counts as present."""
    if clip.audio is None:
        return clip
    return Decoded(clip.video, np.full_like(clip.audio, SILENCE), clip.video_present, clip.audio_present)


def blanked(clip: Decoded) -> Decoded:
    """The clip with black frames in place of its picture; the picture still counts as present."""
    if clip.video is None:
        return clip
    size = clip.video.shape[-1]
    video = np.full_like(clip.video, BLACK_UV)
    video[..., :size, :] = BLACK_Y
    return Decoded(video, clip.audio, clip.video_present, clip.audio_present)


def with_sound_of(clip: Decoded, other: Decoded) -> Decoded:
    """The clip with another clip's sound in place of its own."""
    return Decoded(clip.video, other.audio, clip.video_present, other.audio_present)


def derangement(seed: int, clips: Sequence[int], groups: Sequence[str]) -> dict[int, int]:
    """A random partner for each of at least two clips: none is its own, and where that can be, none is of its group.

    Clips of one source video may share a sound. It cannot be where one group has more than half of the clips.
    """
    members: dict[str, list[int]] = {}
    for index in np.random.default_rng((seed, SWAP)).permutation(len(clips)):
        members.setdefault(groups[int(index)], []).append(clips[int(index)])
    order = [clip for group in members.values() for clip in group]
    # Members of a group stand in a row: who looks past the largest group meets none of their own.
    largest = max(map(len, members.values()))
    shift = largest if largest < len(order) else 1
    return dict(zip(order, order[shift:] + order[:shift], strict=True))
