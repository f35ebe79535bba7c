"""The random part of a training sample, as a function of the seed and the sample's number alone.

No state passes from sample to sample: a run that resumes at sample g draws the numbers of the first run, with any
number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mirasol.data.conditions import Condition
from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.loading.texts import Text
from mirasol.data.loading.waveform import Box
from mirasol.media.log_mel import BLACK_UV, BLACK_Y, SILENCE
from mirasol.media.yuv import blend, draw_box, mirrored, zoomed

if TYPE_CHECKING:
    from mirasol.model.batch import Batch

# Streams of random numbers that do not overlap: switching one augmentation off leaves the draws of the others alone.
ORDER, SAMPLE, SWAP, REPLACE, CHANGE, MIX, SETS, HIDE = range(8)
NUMBERS = 10  # uniform numbers that augment a clip, however much of it is on
UNCHANGED = np.zeros(NUMBERS)

C = TypeVar("C", "Decoded", "Batch")


@dataclass(frozen=True)
class Augmentation:
    """How training clips are changed (S 4): the keys of a phase of the same names. The default changes nothing."""

    crop: float = 1.0  # smallest share of the picture's area that is kept; one box for a clip
    flip: float = 0.0  # share of clips that are mirrored
    spec_time: float = 0.0  # longest share of the clip's columns under one mask (SpecAugment)
    spec_mel: float = 0.0  # largest share of the mel bands under one mask
    mixup: float = 0.0  # alpha of Beta(alpha, alpha)
    jitter: int = 0  # chunks at most that a clip starts later


OFF = Augmentation()


def permutation(seed: int, epoch: int, clips: int, which: int = 0) -> NDArray[np.int64]:
    """The order of the ``clips`` clips of data set ``which`` in an epoch."""
    return np.random.default_rng((seed, ORDER, epoch, *([which] if which else []))).permutation(clips)


def draws_of(seed: int, stream: int, sample: int) -> np.random.Generator:
    """The random numbers of ``stream`` for training sample ``sample``, counted from the start of training."""
    return np.random.default_rng((seed, stream, sample))


def draw_texts(texts: Sequence[Text], count: int, main: Sequence[str], draws: np.random.Generator) -> list[Text]:
    """At most ``count`` of a clip's texts without repeats, in random order.

    Texts of tasks outside ``main`` are accompanying captions: one is drawn, if ``count`` allows two texts.
    """
    first = [t for t in texts if t.task in main]
    captions = [t for t in texts if t.task not in main]
    chosen = [captions[int(i)] for i in draws.permutation(len(captions))[: 1 if count > 1 or not first else 0]]
    return [first[int(i)] for i in draws.permutation(len(first))[: count - len(chosen)]] + chosen


def draw_missing(mute: float, blank: float, draws: np.random.Generator) -> Condition:
    """Muted, blanked or unchanged; never both, so that every sample keeps a modality."""
    number = draws.random()
    return Condition.muted if number < mute else Condition.blanked if number < mute + blank else Condition.unchanged


def draw_start(how: Augmentation, numbers: NDArray[np.float64]) -> int:
    """How many chunks later the clip begins, by the first of ``NUMBERS`` uniform numbers of [0, 1)."""
    return int(numbers[0] * (how.jitter + 1))


def augmented(clip: Decoded, how: Augmentation, numbers: NDArray[np.float64]) -> Decoded:
    """The clip cropped, mirrored and masked by ``NUMBERS`` uniform numbers of [0, 1)."""
    video, audio, waveform = clip.video, clip.audio, clip.waveform
    if video is not None and how.crop < 1.0:
        video = zoomed(video, draw_box(video.shape[-1], how.crop, numbers[1:5]))
    if video is not None and numbers[5] < how.flip:
        video = mirrored(video)
    if audio is not None and (how.spec_time or how.spec_mel):
        audio = masked(audio, clip.audio_present, how, numbers[6:10])
    if waveform is not None and clip.audio_present.any() and (how.spec_time or how.spec_mel):
        waveform = waveform.masked(mask_box(waveform.grid, how, numbers[6:10]))
    return replace(clip, video=video, audio=audio, waveform=waveform)


def masked(
    audio: NDArray[np.float32], present: NDArray[np.bool_], how: Augmentation, numbers: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Features [T, A, M] with a stretch of time, over chunks, and a band of mels at the clip's mean (SpecAugment)."""
    if not present.any():
        return audio
    mean = np.float32(audio[present].mean(dtype=np.float64))
    flat = audio.reshape(-1, audio.shape[-1]).copy()
    begin, end, lowest, highest = mask_box((len(flat), audio.shape[-1]), how, numbers)
    flat[begin:end] = mean
    flat[:, lowest:highest] = mean
    return flat.reshape(audio.shape)


def mask_box(grid: tuple[int, int], how: Augmentation, numbers: NDArray[np.float64]) -> Box:
    """The hidden columns of time and mels of ``grid``.

    Four numbers of [0, 1) decide width and place of the stretch, then of the band.
    """
    edges: list[int] = []
    longest = (how.spec_time, how.spec_mel)
    for size, share, width, place in zip(grid, longest, numbers[::2], numbers[1::2], strict=True):
        hidden = int(width * (int(share * size) + 1))
        low = int(place * (size - hidden + 1))
        edges += [low, low + hidden]
    return edges[0], edges[1], edges[2], edges[3]


def draw_share(alpha: float, draws: np.random.Generator) -> float:
    """The share of the first of two clips that are mixed, Beta(alpha, alpha), in steps of 1/256."""
    return round(float(draws.beta(alpha, alpha)) * 256) / 256


def mixable(clip: Decoded, other: Decoded) -> bool:
    """Whether both have picture and sound at the same chunks: a mixture with an absent chunk means nothing."""
    pairs = ((clip.video_present, other.video_present), (clip.audio_present, other.audio_present))
    return all(np.array_equal(one, two) for one, two in pairs)


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


def under(condition: Condition, clip: C) -> C:
    """A clip, or a batch of clips with features, muted or blanked; under other conditions as it is.

    The sound or the picture that is silenced or blackened still counts as present: it was recorded, and is silent.
    """
    if condition == Condition.muted and (clip.audio is not None or clip.waveform is not None):
        waveform: Any = clip.waveform  # of a clip; batches that are muted have features
        waveform = None if waveform is None else waveform.muted()
        audio = None if clip.audio is None else _like(clip.audio)
        if audio is not None:
            audio[...] = SILENCE
        return replace(clip, audio=audio, waveform=waveform)
    if condition == Condition.blanked and clip.video is not None:
        size, video = clip.video.shape[-1], _like(clip.video)
        video[..., :size, :], video[..., size:, :] = BLACK_Y, BLACK_UV
        return replace(clip, video=video)
    return clip


def _like(values: Any) -> Any:
    """An array or a tensor of the same shape and kind, to be filled."""
    return np.empty_like(values) if isinstance(values, np.ndarray) else values.new_empty(values.shape)


def with_sound_of(clip: Decoded, other: Decoded) -> Decoded:
    """The clip with the sound of another clip."""
    return Decoded(clip.video, other.audio, clip.video_present, other.audio_present, other.waveform)


def derangement(seed: int, clips: Sequence[int], groups: Sequence[str]) -> dict[int, int]:
    """A random partner for each of at least two clips: never itself, and where possible of another group.

    Clips of one source video may share a sound. A group with more than half of the clips makes that impossible.
    """
    members: dict[str, list[int]] = {}
    for index in np.random.default_rng((seed, SWAP)).permutation(len(clips)):
        members.setdefault(groups[int(index)], []).append(clips[int(index)])
    order = [clip for group in members.values() for clip in group]
    # Members of a group are consecutive: a shift by the size of the largest group leads out of every group.
    largest = max(map(len, members.values()))
    shift = largest if largest < len(order) else 1
    return dict(zip(order, order[shift:] + order[:shift], strict=True))
