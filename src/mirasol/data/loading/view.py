"""A phase's view of clips at rest: a later start, then fewer chunks, frames and pixels. The same on any machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.loading.waveform import chunks_shape, feature_grid
from mirasol.media.clip import ClipSpec, View
from mirasol.media.log_mel import SILENCE, black_frame
from mirasol.media.yuv import shrunk

if TYPE_CHECKING:
    from mirasol.model.config import ModelConfig


def view_of(model: ModelConfig) -> View:
    """The view of the clips that ``model`` was trained with."""
    return View(model.size, model.chunks, model.frames_per_chunk)


def viewed(clip: Decoded, stored: ClipSpec, seen: ClipSpec) -> Decoded:
    """``clip``, cut by ``stored``, as :meth:`mirasol.media.clip.View.of` cuts it: by ``seen``.

    Features are means of the columns of the same time, so that sound and picture stay together; a waveform keeps the
    samples of its chunks.
    """
    if stored == seen:
        return clip
    chunks, every = seen.chunks, stored.frames_per_chunk // seen.frames_per_chunk
    video, audio, waveform = clip.video, clip.audio, clip.waveform
    if video is not None:
        video = shrunk(np.ascontiguousarray(video[:chunks, ::every]), seen.size)
    if audio is not None:
        columns = audio[:chunks].reshape(chunks, seen.audio_columns, every, seen.mels)
        audio = columns.mean(axis=2, dtype=np.float64).astype(np.float32)
    if waveform is not None:
        _, samples = chunks_shape(seen)
        waveform = replace(
            waveform, chunks=waveform.chunks[:, :chunks, :samples], samples=waveform.samples[:, :chunks],
            grid=feature_grid(seen),
        )  # fmt: skip
    return Decoded(video, audio, clip.video_present[:chunks], clip.audio_present[:chunks], waveform)


def starting_later(clip: Decoded, chunks: int) -> Decoded:
    """The clip without its first ``chunks`` chunks, and as many absent ones at its end (chunk-aligned jitter).

    Sound and picture stay together, and each keeps at least one of its chunks.
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
    video_present, audio_present = (np.concatenate([p[by:], absent]) for p in (clip.video_present, clip.audio_present))
    return Decoded(video, audio, video_present, audio_present, waveform)
