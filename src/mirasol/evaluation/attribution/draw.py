"""Draws where a model looked: for each token of an answer its chunks, and the picture and sound of the strongest."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mirasol.data.loading.decoded_cache import Decoded
from mirasol.evaluation.pictures import rgb
from mirasol.model.mirasol import Mirasol

if TYPE_CHECKING:
    from mirasol.evaluation.attribution.explain_file import Explained

DPI = 100
WIDTH, HEAD, ROW = 12.0, 1.1, 2.0  # inches
FRAMES_SHOWN = 4
HEAT = (1.0, 0.55, 0.0)  # orange: seen on dark and on light
STRONGEST, OTHER, COUNTED = "#b45309", "#64748b", "#fcd9a8"
LABELLED = 8  # chunks; more have no room for numbers
HOW = (
    "Dark bars: attention of the text decoder over the chunks. Light bars and orange: what counted, by gradient times "
    "feature. A reading, no proof: docs/evaluation.md."
)

Heat = NDArray[np.float64]


def size_of(tokens: int) -> tuple[int, int]:
    """Width and height of the picture in pixels, for an answer of ``tokens`` tokens."""
    return round(WIDTH * DPI), round((HEAD + ROW * tokens) * DPI)


def draw(explained: Explained, clip: Decoded, model: Mirasol) -> bytes:
    """A PNG file of :func:`size_of` pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(explained.pieces)
    width, height = size_of(rows)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{explained.question}\n{explained.answer or '(nothing)'}", fontsize=12, parse_math=False)
    figure.supxlabel(HOW, fontsize=7, color="#475569")
    for token, axes in enumerate(figure.subplots(rows, 3, squeeze=False, width_ratios=(3, 6, 3))):
        strongest = int(explained.chunks[token].argmax())
        _chunks(axes[0], explained, token, strongest)
        shares = explained.features[token, strongest].astype(float)
        peak = max(float(shares.max()), 1e-12)  # one scale for picture and sound
        _frames(axes[1], clip, strongest, shares[: explained.video_tokens], peak, model)
        _sound(axes[2], clip, strongest, shares[explained.video_tokens :], peak, model)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    return picture.getvalue()


def _chunks(axes: Any, explained: Explained, token: int, strongest: int) -> None:
    attention, counted = explained.chunks[token], explained.features[token].sum(-1)
    places = np.arange(len(attention))
    colours = [STRONGEST if t == strongest else OTHER for t in places]
    axes.bar(places - 0.2, attention, 0.4, color=colours)
    axes.bar(places + 0.2, counted, 0.4, color=COUNTED)
    axes.set_title(f"“{explained.pieces[token]}”", fontsize=10, loc="left", parse_math=False)
    axes.set_ylim(0, 1.15 * float(max(attention.max(), counted.max())))
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(attention) <= LABELLED:
        for t, share in enumerate(attention):
            axes.text(t - 0.2, float(share), f"{share:.0%}", ha="center", va="bottom", fontsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if token == len(explained.pieces) - 1:
        axes.set_xlabel("chunk", fontsize=8)


def _frames(axes: Any, clip: Decoded, chunk: int, shares: Heat, peak: float, model: Mirasol) -> None:
    """The chunk's frames side by side. The tubes of a column of frames may be one: then it glows in all of them."""
    axes.set_xticks([]), axes.set_yticks([])
    axes.set_title(f"chunk {chunk}, picture: {shares.sum():.0%} of what counted", fontsize=8, loc="left")
    if clip.video is None or not clip.video_present[chunk]:
        axes.text(0.5, 0.5, "no picture", ha="center", transform=axes.transAxes)
        return
    frames, heat = rgb(clip.video[chunk]), over_frames(shares, model)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES_SHOWN, len(frames))).round().astype(int))
    gap = max(1, frames.shape[2] // 32)
    strip = np.concatenate([np.pad(frames[i], ((0, 0), (0, gap), (0, 0)), constant_values=255) for i in shown], 1)
    hot = np.concatenate([np.pad(heat[i], ((0, 0), (0, gap))) for i in shown], 1)
    axes.imshow(strip)
    _glow(axes, hot, float(shares.max()) / peak)


def _sound(axes: Any, clip: Decoded, chunk: int, shares: Heat, peak: float, model: Mirasol) -> None:
    axes.set_xticks([]), axes.set_yticks([])
    axes.set_title(f"chunk {chunk}, sound: {shares.sum():.0%}", fontsize=8, loc="left")
    if clip.audio is None or not clip.audio_present[chunk]:
        axes.text(0.5, 0.5, "no sound", ha="center", transform=axes.transAxes)
        return
    low, high = float(clip.audio.min()), float(clip.audio.max())
    axes.imshow(clip.audio[chunk].T, origin="lower", cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
    _glow(axes, over_sound(shares, model).T, float(shares.max()) / peak, origin="lower", aspect="auto")


def _glow(axes: Any, heat: Heat, strength: float, **how: Any) -> None:
    """Orange over what is shown, from clear to 70 % of ``strength`` at the hottest place."""
    colour = np.broadcast_to(HEAT, (*heat.shape, 3))
    opacity = 0.7 * strength * heat / max(float(heat.max()), 1e-12)
    axes.imshow(np.concatenate([colour, opacity[..., None]], axis=-1), **how)


def over_frames(shares: Heat, model: Mirasol) -> Heat:
    """Shares [f] of the video features spread over the pixels of their tubes: [K, H, W].

    The sum stays, but for what fell on frames of the chunk before (`model.overlap`).
    """
    config = model.config
    heat = np.zeros((config.seen_frames, config.size, config.size))
    rest = iter(shares)
    for lattice in model.video_tubes.lattices:
        (t, h, w), (st, sh, sw) = lattice.shape, lattice.stride
        for place in np.ndindex(*lattice.counts):
            begin = place[0] * st, place[1] * sh, place[2] * sw
            tube = tuple(slice(b, b + e) for b, e in zip(begin, (t, h, w), strict=True))
            heat[tube] += next(rest) / (t * h * w)
    return heat[config.overlap :]


def over_sound(shares: Heat, model: Mirasol) -> Heat:
    """Shares [s] of the audio features spread over the cells of their patches: [A, M]; see :func:`over_frames`."""
    (columns, mels), (rows, bands) = model.audio.patch, model.audio.grid
    heat = np.zeros((model.config.seen_columns, model.config.mels))
    spread = shares.reshape(rows, bands).repeat(columns, 0).repeat(mels, 1) / (columns * mels)
    heat[: rows * columns, : bands * mels] = spread
    return heat[model.config.overlap_columns :]
