"""Draws an attribution: for each token of an answer its chunks, and the picture and sound of the strongest."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mirasol.data.loading.decoded_cache import Decoded
from mirasol.evaluation.attribution.attribute import Attribution, Heat
from mirasol.evaluation.pictures import rgb

DPI = 100
WIDTH, HEAD, ROW = 12.0, 1.1, 2.0  # inches
FRAMES_SHOWN = 4
HEAT = (1.0, 0.55, 0.0)  # orange: seen on dark and on light
STRONGEST, OTHER, COUNTED = "#b45309", "#64748b", "#fcd9a8"
LABELLED = 8  # chunks; numbers of more would overlap
HOW = (
    "Dark bars: attention of the text decoder over the chunks. Light bars and orange: what counted, by gradient times "
    "feature. A reading, no proof: docs/evaluation.md."
)


def size_of(tokens: int) -> tuple[int, int]:
    """Width and height in pixels of the picture of an answer of ``tokens`` tokens."""
    return round(WIDTH * DPI), round((HEAD + ROW * tokens) * DPI)


def draw(found: Attribution, clip: Decoded) -> bytes:
    """A PNG file of :func:`size_of` pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(found.pieces)
    width, height = size_of(rows)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{found.question}\n{found.answer or '(nothing)'}", fontsize=12, parse_math=False)
    figure.supxlabel(HOW, fontsize=7, color="#475569")
    for token, (chunks, frames, sound) in enumerate(figure.subplots(rows, 3, squeeze=False, width_ratios=(3, 6, 3))):
        strongest = int(found.chunks[token].argmax())
        _chunks(chunks, found, token, strongest)
        shares = found.features[token, strongest].astype(float)
        peak = max(float(shares.max()), 1e-12)  # one scale for picture and sound
        seen, heard = shares[: found.video_tokens], shares[found.video_tokens :]
        seen_share, heard_share = found.shares(token)
        frames.set_title(f"picture: {seen_share} of what counted; shown: chunk {strongest}", fontsize=8, loc="left")
        _frames(frames, clip, strongest, found.over_frames(shares), float(seen.max()) / peak)
        sound.set_title(f"sound: {heard_share}; shown: chunk {strongest}", fontsize=8, loc="left")
        _sound(sound, clip, strongest, found.over_sound(shares), float(heard.max()) / peak)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    return picture.getvalue()


def _chunks(axes: Any, found: Attribution, token: int, strongest: int) -> None:
    attention, counted = found.chunks[token], found.features[token].sum(-1)
    places = np.arange(len(attention))
    colours = [STRONGEST if t == strongest else OTHER for t in places]
    axes.bar(places - 0.2, attention, 0.4, color=colours)
    axes.bar(places + 0.2, counted, 0.4, color=COUNTED)
    axes.set_title(f"“{found.pieces[token]}”", fontsize=10, loc="left", parse_math=False)
    axes.set_ylim(0, 1.15 * float(max(attention.max(), counted.max())))
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(attention) <= LABELLED:
        for t, share in enumerate(attention):
            axes.text(t - 0.2, float(share), f"{share:.0%}", ha="center", va="bottom", fontsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if token == len(found.pieces) - 1:
        axes.set_xlabel("chunk", fontsize=8)


def _frames(axes: Any, clip: Decoded, chunk: int, heat: Heat, strength: float) -> None:
    """The chunk's frames side by side. A tube over all frames of a column glows in each of them."""
    axes.set_xticks([]), axes.set_yticks([])
    if clip.video is None or not clip.video_present[chunk]:
        axes.text(0.5, 0.5, "no picture", ha="center", transform=axes.transAxes)
        return
    frames = rgb(clip.video[chunk])
    shown = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES_SHOWN, len(frames))).round().astype(int))
    gap = max(1, frames.shape[2] // 32)
    axes.imshow(np.concatenate([np.pad(frames[i], ((0, 0), (0, gap), (0, 0)), constant_values=255) for i in shown], 1))
    _glow(axes, np.concatenate([np.pad(heat[i], ((0, 0), (0, gap))) for i in shown], 1), strength)


def _sound(axes: Any, clip: Decoded, chunk: int, heat: Heat, strength: float) -> None:
    axes.set_xticks([]), axes.set_yticks([])
    if clip.audio is None or not clip.audio_present[chunk]:
        axes.text(0.5, 0.5, "no sound", ha="center", transform=axes.transAxes)
        return
    low, high = float(clip.audio.min()), float(clip.audio.max())
    axes.imshow(clip.audio[chunk].T, origin="lower", cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
    _glow(axes, heat.T, strength, origin="lower", aspect="auto")


def _glow(axes: Any, heat: Heat, strength: float, **how: Any) -> None:
    """Orange over the picture, from clear to 70 % of ``strength`` at the hottest place."""
    colour = np.broadcast_to(HEAT, (*heat.shape, 3))
    opacity = 0.7 * strength * heat / max(float(heat.max()), 1e-12)
    axes.imshow(np.concatenate([colour, opacity[..., None]], axis=-1), **how)
