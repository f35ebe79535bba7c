"""Contact sheets: a row per clip with its frames, its features and its words, pages of rows, PNG files."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mirasol.core.files import atomic_write
from mirasol.data.loading.decoded_cache import Decoded
from mirasol.media.log_mel import SILENCE

FRAMES_SHOWN = 16
LINES_SHOWN = 13  # of marks and texts beside a clip
ROWS = 12  # of a page
LINES = 40  # of a page of text
ROW_INCHES, HEAD_INCHES, WIDTH_INCHES = 1.9, 0.5, 16.0
COLOURS = {"good": "#1a7f37", "note": "#57606a", "change": "#0550ae", "bad": "#b35900", "lost": "#cf222e"}
LOUDEST = 3.0  # of features: full scale
GAP = 3  # pixels between chunks


@dataclass(frozen=True)
class Row:
    """A clip of the sheet."""

    title: str
    marks: tuple[tuple[str, str], ...]  # (one of COLOURS, what there is to say), shown in this order
    texts: tuple[str, ...]
    clip: Decoded | None  # None: it cannot be read


def write_sheet(out: Path, head: str, rows: Sequence[Row], lines: Sequence[str] = ()) -> list[Path]:
    """Write pages of ``rows`` and then of ``lines``: ``out``, or ``out`` with ``-1``, ``-2`` ... in its name.

    Raises:
        MirasolError: ``out`` cannot be written.
    """
    pages: list[tuple[str, Sequence[Row] | Sequence[str]]] = []
    for low in range(0, len(rows), ROWS):
        part = rows[low : low + ROWS]
        pages.append((head, part))
    for low in range(0, len(lines), LINES):
        pages.append((f"{head} · {len(lines):,} rejected", lines[low : low + LINES]))
    digits = len(str(len(pages)))
    written = []
    for number, (title, content) in enumerate(pages, 1):
        path = out if len(pages) == 1 else out.with_name(f"{out.stem}-{number:0{digits}d}{out.suffix}")
        picture = _page(title if len(pages) == 1 else f"{title} · page {number} of {len(pages)}", content)
        with atomic_write(path) as file:
            file.write(picture)
        written.append(path)
    return written


def to_rgb(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Planar YUV 4:2:0 frames [N, size*3/2, size] to RGB [N, size, size, 3]."""
    pictures = [av.VideoFrame.from_ndarray(frame, format="yuv420p").to_ndarray(format="rgb24") for frame in frames]
    return np.stack(pictures).astype(np.uint8, copy=False)


def _page(title: str, content: Sequence[Row] | Sequence[str]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in content if isinstance(row, Row)]
    height = HEAD_INCHES + (ROW_INCHES * len(rows) if rows else 0.2 * len(content) + 0.3)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.005, ha="left", fontsize=11, parse_math=False)
    if rows:
        grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(6, 3, 5))
        for (pictures, sound, words), row in zip(grid, rows, strict=True):
            _draw_frames(pictures, row)
            _draw_sound(sound, row)
            _draw_words(words, row)
    else:
        axes: Any = figure.subplots()
        axes.axis("off")
        text = "\n".join(textwrap.shorten(str(line), 210, placeholder=" …") for line in content)
        axes.text(0, 1, text, va="top", fontsize=8, family="monospace", parse_math=False)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name or text: a box stands for it
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _draw_frames(axes: Any, row: Row) -> None:
    axes.set_title(row.title, fontsize=7, loc="left", parse_math=False)
    axes.set_xticks([]), axes.set_yticks([])
    video = row.clip.video if row.clip is not None else None
    if row.clip is None or video is None:
        axes.text(0.5, 0.5, "cannot be read" if row.clip is None else "no picture", ha="center")
        return
    each = max(1, min(video.shape[1], FRAMES_SHOWN // video.shape[0]))  # of a chunk
    chunks = np.linspace(0, video.shape[0] - 1, min(FRAMES_SHOWN, video.shape[0])).round().astype(int)
    frames = np.linspace(0, video.shape[1] - 1, each).round().astype(int)
    blocks = []
    for chunk in chunks:
        rgb = to_rgb(video[chunk][frames])
        if not row.clip.video_present[chunk]:
            rgb = _hatched(rgb)
        rgb = np.pad(rgb, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)  # a line between frames
        blocks.append(np.pad(np.concatenate(list(rgb), axis=1), ((0, 0), (0, GAP), (0, 0)), constant_values=255))
    columns = -(-len(blocks) // 2) if len(blocks) > 1 else 1
    lines = [blocks[low : low + columns] for low in range(0, len(blocks), columns)]
    lines[-1] += [np.full_like(blocks[0], 255)] * (columns - len(lines[-1]))
    axes.imshow(np.concatenate([np.concatenate(line, axis=1) for line in lines], axis=0))
    axes.set_anchor("W")
    axes.axis("off")


def _hatched(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey stripes: nothing is there, which is not black."""
    rows, columns = np.indices(rgb.shape[1:3])
    stripes = np.where((rows + columns) // 4 % 2, 200, 230).astype(np.uint8)
    return np.broadcast_to(stripes[None, :, :, None], rgb.shape).copy()


def _draw_sound(axes: Any, row: Row) -> None:
    axes.set_xticks([]), axes.set_yticks([])
    if row.clip is None or row.clip.audio is None:
        axes.text(0.5, 0.5, "" if row.clip is None else "no sound", ha="center")
        return
    audio, columns = row.clip.audio, row.clip.audio.shape[1]
    mel = audio.reshape(-1, audio.shape[-1])
    axes.imshow(mel.T, origin="lower", aspect="auto", vmin=SILENCE, vmax=LOUDEST, cmap="magma", interpolation="nearest")
    for chunk in range(1, len(audio)):
        axes.axvline(chunk * columns - 0.5, color="white", linewidth=0.5)
    for chunk in np.flatnonzero(~row.clip.audio_present).tolist():
        edges = chunk * columns - 0.5, (chunk + 1) * columns - 0.5
        axes.axvspan(*edges, facecolor="#e6e6e6", edgecolor="#c8c8c8", hatch="//")


def _draw_words(axes: Any, row: Row) -> None:
    """The marks, each line in its colour, and the texts below them."""
    axes.axis("off")
    lines = list(_wrapped(row))
    for number, (colour, text) in enumerate(lines):
        style = {"fontsize": 7, "family": "monospace", "parse_math": False, "color": colour}
        axes.text(0, 1 - number / LINES_SHOWN, text, va="top", transform=axes.transAxes, **style)


def _wrapped(row: Row) -> Iterator[tuple[str, str]]:
    """(colour, line) of the marks, those of a colour side by side, and of the texts."""
    kinds = dict.fromkeys(kind for kind, _ in row.marks)
    room = LINES_SHOWN
    for kind in kinds:
        for line in textwrap.wrap(" · ".join(text for k, text in row.marks if k == kind), 92)[:3]:
            room -= 1
            yield COLOURS[kind], line
    shown = row.texts if len(row.texts) <= room else row.texts[: room - 1]
    for text in shown:
        yield "black", textwrap.shorten(text, 92, placeholder=" …")
    if len(shown) < len(row.texts):
        yield COLOURS["note"], f"… and {len(row.texts) - len(shown)} more"
