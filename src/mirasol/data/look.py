"""``mirasol data look``: a contact sheet of clips as the model sees them: frames, spectrogram, texts."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.data.features import SILENCE
from mirasol.data.shardset import ClipArrays, ShardSet

FRAMES_SHOWN = 16
TEXTS_SHOWN = 8
ROW_INCHES = 1.9


def look(shard_set: ShardSet, out: Path, *, clips: int = 12, keys: Sequence[str] = ()) -> Path:
    """Write a PNG of ``clips`` clips spread evenly over the split, or of the clips ``keys``.

    Returns:
        ``out``.

    Raises:
        MirasolError: a key is not in the split, a clip is damaged, or ``out`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    unknown = sorted(set(keys) - set(shard_set.keys))
    if unknown:
        raise MirasolError(f"{shard_set.folder}: no clip {', '.join(unknown)} in the split {shard_set.split}")
    number = {key: index for index, key in enumerate(shard_set.keys)}
    spread = np.linspace(0, len(shard_set) - 1, min(clips, len(shard_set))).round()
    chosen = [number[key] for key in keys] or [int(i) for i in spread]
    figure = Figure(figsize=(16, ROW_INCHES * len(chosen)), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(chosen), 3, squeeze=False, width_ratios=(6, 3, 5))
    for (pictures, sound, words), index in zip(grid, chosen, strict=True):
        clip = shard_set.read(index)
        _draw_frames(pictures, clip, shard_set.keys[index])
        _draw_sound(sound, clip)
        words.axis("off")
        words.text(0, 1, _texts(clip.meta), va="top", fontsize=7, family="monospace", parse_math=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    with atomic_write(out) as file:
        file.write(picture.getvalue())
    return out


def to_rgb(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Planar YUV 4:2:0 frames [N, size*3/2, size] to RGB [N, size, size, 3]."""
    pictures = [av.VideoFrame.from_ndarray(frame, format="yuv420p").to_ndarray(format="rgb24") for frame in frames]
    return np.stack(pictures).astype(np.uint8, copy=False)


def _draw_frames(axes: Any, clip: ClipArrays, key: str) -> None:
    meta = clip.meta
    window = "" if meta["start"] is None and meta["end"] is None else f" {meta['start'] or 0:g}-{meta['end'] or '…'} s"
    axes.set_title(f"{key}  {meta['media'][-60:]}{window}", fontsize=7, loc="left", parse_math=False)
    axes.set_xticks([]), axes.set_yticks([])
    if clip.video is None:
        axes.text(0.5, 0.5, "no picture", ha="center", transform=axes.transAxes)
        return
    frames = clip.video.reshape(-1, *clip.video.shape[2:])
    shown = frames[np.linspace(0, len(frames) - 1, min(FRAMES_SHOWN, len(frames))).round().astype(int)]
    columns = -(-len(shown) // 2)
    rgb = to_rgb(np.concatenate([shown, shown[: 2 * columns - len(shown)]]))
    rgb = np.pad(rgb, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)  # a line between frames
    axes.imshow(np.concatenate([np.concatenate(list(row), axis=1) for row in (rgb[:columns], rgb[columns:])], axis=0))


def _draw_sound(axes: Any, clip: ClipArrays) -> None:
    meta = clip.meta
    state = "silent" if meta["silent"] else meta["partial"]
    axes.set_title(
        f"{meta['chunks']} x {meta['chunk_seconds']:.3g} s  {state}", fontsize=7, loc="left", parse_math=False
    )
    axes.set_xticks([]), axes.set_yticks([])
    if clip.audio is None:
        axes.text(0.5, 0.5, "no sound", ha="center", transform=axes.transAxes)
        return
    mel = clip.audio.reshape(-1, clip.audio.shape[-1])
    axes.imshow(mel.T, origin="lower", aspect="auto", vmin=SILENCE, vmax=3, cmap="magma", interpolation="nearest")
    for chunk in range(1, clip.audio.shape[0]):
        axes.axvline(chunk * clip.audio.shape[1] - 0.5, color="white", linewidth=0.5)


def _texts(meta: dict[str, Any]) -> str:
    lines = [f"{e['prompt']} {' | '.join(e['answers'])}" for e in meta["examples"]]
    more = [f"… and {len(lines) - TEXTS_SHOWN} more"] if len(lines) > TEXTS_SHOWN else []
    return (
        "\n".join(textwrap.shorten(line, 88, placeholder=" …") for line in lines[:TEXTS_SHOWN]) + "\n" + "".join(more)
    )
