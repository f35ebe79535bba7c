"""What chance decides about a training sample, as a function of the seed and the sample's number alone.

Nothing remembers anything between samples: a run that resumes at sample g draws what the first run drew,
with any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.loading.texts import Text
from mirasol.data.loading.waveform import Box
from mirasol.media.log_mel import BLACK_UV, BLACK_Y, SILENCE, black_frame
from mirasol.media.yuv import blend, draw_box, mirrored, zoomed

# Streams of random numbers that do not overlap. What is off takes nothing from another's.
ORDER, SAMPLE, SWAP, REPLACE, CHANGE, MIX, SETS = range(7)
CHANCES = 10  # numbers that decide how a clip is changed, whatever of it is on


@dataclass(frozen=True)
class Augmentation:
    """How training clips are changed (S 4): the keys of a phase of the same names. By default not at all."""

    crop: float = 1.0  # smallest share of the picture's area that is kept; one box for a clip
    flip: float = 0.0  # share of clips that are mirrored
    spec_time: float = 0.0  # longest share of the clip's columns under one mask (SpecAugment)
    spec_mel: float = 0.0  # largest share of the mel bands under one mask
    mixup: float = 0.0  # alpha of Beta(alpha, alpha)
    jitter: int = 0  # chunks at most that a clip begins later


OFF = Augmentation()


def permutation(seed: int, epoch: int, clips: int) -> NDArray[np.int64]:
    """The order of ``clips`` clips in an epoch."""
    return np.random.default_rng((seed, ORDER, epoch)).permutation(clips)


def sample_draws(seed: int, sample: int) -> np.random.Generator:
    """The random numbers of training sample ``sample``, counted from the beginning of training."""
    return np.random.default_rng((seed, SAMPLE, sample))


def other_draws(seed: int, stream: int, sample: int) -> np.random.Generator:
    """The random numbers of ``stream`` for training sample ``sample``."""
    return np.random.default_rng((seed, stream, sample))


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


def changed(clip: Decoded, how: Augmentation, chances: NDArray[np.float64]) -> Decoded:
    """The clip jittered, cropped, mirrored and masked by ``CHANCES`` numbers of [0, 1), one or more for each."""
    clip = begun_later(clip, int(chances[0] * (how.jitter + 1)))
    video, audio, waveform = clip.video, clip.audio, clip.waveform
    if video is not None and how.crop < 1.0:
        video = zoomed(video, draw_box(video.shape[-1], how.crop, chances[1:5]))
    if video is not None and chances[5] < how.flip:
        video = mirrored(video)
    if audio is not None and (how.spec_time or how.spec_mel):
        audio = masked(audio, clip.audio_present, how, chances[6:10])
    if waveform is not None and clip.audio_present.any() and (how.spec_time or how.spec_mel):
        waveform = waveform.masked(mask_box(waveform.grid, how, chances[6:10]))
    return replace(clip, video=video, audio=audio, waveform=waveform)


def begun_later(clip: Decoded, chunks: int) -> Decoded:
    """The clip without its first ``chunks`` chunks, and as many absent ones at its end (chunk-aligned jitter).

    Sound and picture stay together, and each keeps at least one chunk of what it has.
    """
    counts = [int(p.sum()) for p in (clip.video_present, clip.audio_present) if p.any()]
    by = max(0, min([chunks, *(n - 1 for n in counts)]))
    if not by:
        return clip
    video, audio = clip.video, clip.audio
    waveform = clip.waveform.later(by) if clip.waveform is not None else None
    if video is not None:
        black = np.broadcast_to(black_frame(video.shape[-1]), video[:by].shape)
        video = np.concatenate([video[by:], black])
    if audio is not None:
        audio = np.concatenate([audio[by:], np.full_like(audio[:by], SILENCE)])
    absent = np.zeros(by, bool)
    seen, heard = (np.concatenate([p[by:], absent]) for p in (clip.video_present, clip.audio_present))
    return Decoded(video, audio, seen, heard, waveform)


def masked(
    audio: NDArray[np.float32], present: NDArray[np.bool_], how: Augmentation, chances: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Features [T, A, M] with one stretch of time and one band of mels at the clip's mean (SpecAugment).

    The time runs over chunks.
    """
    if not present.any():
        return audio
    mean = np.float32(audio[present].mean(dtype=np.float64))
    flat = audio.reshape(-1, audio.shape[-1]).copy()
    begin, end, lowest, highest = mask_box((len(flat), audio.shape[-1]), how, chances)
    flat[begin:end] = mean
    flat[:, lowest:highest] = mean
    return flat.reshape(audio.shape)


def mask_box(grid: tuple[int, int], how: Augmentation, chances: NDArray[np.float64]) -> Box:
    """Which columns of time and which mels of ``grid`` are hidden.

    Four numbers of [0, 1) decide width and place of the stretch, then of the band.
    """
    edges: list[int] = []
    for size, longest, width, place in zip(
        grid, (how.spec_time, how.spec_mel), chances[::2], chances[1::2], strict=True
    ):
        hidden = int(width * (int(longest * size) + 1))
        low = int(place * (size - hidden + 1))
        edges += [low, low + hidden]
    return edges[0], edges[1], edges[2], edges[3]


def draw_share(alpha: float, draws: np.random.Generator) -> float:
    """The share of the first of two clips that are mixed, Beta(alpha, alpha), in steps of 1/256."""
    return round(float(draws.beta(alpha, alpha)) * 256) / 256


def mixable(clip: Decoded, other: Decoded) -> bool:
    """Whether both have picture and sound at the same chunks: a mixture with what is absent means nothing."""
    return np.array_equal(clip.video_present, other.video_present) and np.array_equal(
        clip.audio_present, other.audio_present
    )


def mixed(clip: Decoded, other: Decoded, share: float) -> Decoded:
    """``share`` of a clip and the rest of another, frames and features (mixup); both present at the same chunks."""
    video, audio, waveform = clip.video, clip.audio, clip.waveform
    if video is not None and other.video is not None:
        video = blend(other.video, video, round(share * 256))
    if audio is not None and other.audio is not None:
        audio = np.float32(share) * audio + np.float32(1.0 - share) * other.audio
    if waveform is not None and other.waveform is not None:
        waveform = waveform.mixed(other.waveform, share)
    return replace(clip, video=video, audio=audio, waveform=waveform)


def muted(clip: Decoded) -> Decoded:
    """The clip with digital silence in place of its sound; the sound still counts as present."""
    audio = None if clip.audio is None else np.full_like(clip.audio, SILENCE)
    return replace(clip, audio=audio, waveform=None if clip.waveform is None else clip.waveform.muted())


def blanked(clip: Decoded) -> Decoded:
    """The clip with black frames in place of its picture; the picture still counts as present."""
    if clip.video is None:
        return clip
    size = clip.video.shape[-1]
    video = np.full_like(clip.video, BLACK_UV)
    video[..., :size, :] = BLACK_Y
    return replace(clip, video=video)


def with_sound_of(clip: Decoded, other: Decoded) -> Decoded:
    """The clip with another clip's sound in place of its own."""
    return Decoded(clip.video, other.audio, clip.video_present, other.audio_present, other.waveform)


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
