"""The pictures of the page: a style for each clip, and the views that show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mirasol.evaluation.pictures import (
    SPECTROGRAM_COLUMNS,
    STRIP_SIDE,
    data_uri,
    glow,
    in_strip,
    png,
    spectrogram,
    strip,
)
from mirasol.media.log_mel import SILENCE

if TYPE_CHECKING:  # its module needs torch
    from mirasol.evaluation.attribution.attribute import Attribution

LOUD = 2.2  # drawn brightest; the standardised features (mirasol.media.log_mel) reach 3 at full scale
CELLS = 12  # points of heat along a side of a frame
LOOKED_FRAMES = 8  # of a clip's strip under its heat
LABELLED = 8  # chunks; numbers of more would overlap


@dataclass(frozen=True)
class Pictures:
    """A clip of the shards on the page."""

    key: str
    frames: int  # in its strip; 0: no picture
    sound: bool
    chunks: int
    seconds: float


class Album:
    """The clips of the page: each is stored once, as a style, and shown in many places.

    ``left_out`` counts the clips without which the page stays below ``limit`` characters.
    """

    def __init__(self, limit: int = 3_600_000) -> None:
        self.limit = limit
        self.left_out = 0
        self.clips: dict[str, Pictures] = {}
        self._rules: list[str] = []

    def add(self, key: str, video: NDArray[np.uint8] | None, audio: NDArray[np.float32] | None, seconds: float) -> bool:
        """Store a clip under its key; ``False`` if the page would grow too large.

        Args:
            video: uint8 [T, K, H*3/2, W].
            audio: standardised pooled log-mel, [T, A, M].
        """
        if key in self.clips:
            return True
        rule, frames = "", 0
        if video is not None:
            image = strip(video)
            frames = image.shape[1] // min(STRIP_SIDE, image.shape[0])
            rule += f'.v-{key}{{background-image:url("{data_uri(png(image))}")}}'
        if audio is not None:
            rule += f'.a-{key}{{background-image:url("{data_uri(png(spectrogram(audio, SILENCE, LOUD)))}")}}'
        if sum(map(len, self._rules)) + len(rule) > self.limit:
            self.left_out += 1
            return False
        self._rules.append(rule)
        chunks = next((len(part) for part in (video, audio) if part is not None), 1)
        self.clips[key] = Pictures(key, frames, audio is not None, chunks, seconds)
        return True

    def style(self) -> str:
        """The style rules that hold the pictures."""
        return "\n".join(self._rules)

    def looked(self, key: str, found: Attribution) -> dict[str, Any]:
        """Where the model looked in a clip, the mean over the tokens of its answer: bars per chunk, heat to lay over
        its frames and its sound."""
        clip, size = self.clips[key], found.config.size
        attention = [float(share) for share in found.chunks.mean(0)]
        features = found.features.astype(float).mean(0)  # [T, n]
        counted = [float(share) for share in features.sum(1)]
        top = max(*attention, *counted, 1e-12)
        peak = max(float(features.max()), 1e-12)  # one scale for picture and sound
        seen, heard = features[:, : found.video_tokens], features[:, found.video_tokens :]
        points = (np.arange(CELLS) * size + size // 2) // CELLS if size > CELLS else np.arange(size)
        frames = np.concatenate([found.over_frames(shares)[:, points][:, :, points] for shares in features])
        frames = glow(np.concatenate(list(frames[in_strip(len(frames))]), 1), float(seen.max()) / peak)
        sound = np.concatenate([found.over_sound(shares) for shares in features])
        sound = glow(sound[:: -(-len(sound) // SPECTROGRAM_COLUMNS)].T[::-1], float(heard.max()) / peak)
        step = -(-clip.frames // LOOKED_FRAMES) or 1
        shown = range(step // 2, clip.frames, step)
        by_frame = frames.reshape(len(frames), -1, len(frames), 4)  # [H, frames, W, 4]
        return {
            "clip": clip,
            "pieces": found.pieces,
            "bars": [(a, c, 100 * a / top, 100 * c / top) for a, c in zip(attention, counted, strict=True)],
            "labelled": len(attention) <= LABELLED,
            "picture": float(seen.sum()),
            "places": [100 * i / max(clip.frames - 1, 1) for i in shown],
            "frames": data_uri(png(by_frame[:, list(shown)].reshape(len(frames), -1, 4))) if shown else "",
            "sound": data_uri(png(sound)),
        }
