"""``mirasol data look``: contact sheets of stored clips, or of the samples of a training phase.

A page has a row per clip with its frames, its features, its state and its texts; pages are PNG files.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.data.conditions import Condition
from mirasol.data.loading import augment
from mirasol.data.loading.augment import OFF
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.loading.loader import TrainingLoader, collate
from mirasol.data.loading.samples import Sample, TrainingSamples
from mirasol.data.shards.format import DamagedClip, read_index
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import SILENCE
from mirasol.media.resample import SAME_TIME
from mirasol.media.yuv import draw_box
from mirasol.tokenizer import Tokenizer

FRAMES_SHOWN = 16
LINES_SHOWN = 13  # of marks and texts next to a clip
ROWS, LINES = 12, 40  # clips, or lines of text, of a page
# Pixels: width of a page, heights of its head, a row and a line, and the columns of a row.
WIDTH, HEAD, ROW, LINE = 1280, 36, 168, 12
FRAMES, FEATURES, TEXTS = (8, 540), (552, 820), 832
COLOURS = {"good": "#1a7f37", "note": "#57606a", "change": "#0550ae", "bad": "#b35900", "lost": "#cf222e"}
LOUDEST = 3.0  # of features: full scale
GAP = 3  # pixels between chunks

Mark = tuple[str, str]  # (one of COLOURS, text)


@dataclass(frozen=True)
class Row:
    """A clip of the sheet."""

    title: str
    marks: tuple[Mark, ...]  # in the order shown
    texts: tuple[str, ...]
    clip: Decoded | None  # None: it cannot be read


def contact_sheet(
    shards: ShardDataset, out: Path, *, clips: int = 12, keys: Sequence[str] = (), shard: str | None = None
) -> list[Path]:
    """Draw ``clips`` clips spread evenly over the split or over one of its tars, or the clips ``keys``.

    Unless ``keys`` or ``shard`` are given, the rejected clips of the split follow with their reasons.

    Returns:
        The pages that were written.

    Raises:
        MirasolError: a key or the shard is not in the split, or ``out`` cannot be written.
    """
    unknown = sorted(set(keys) - set(shards.keys))
    if unknown:
        raise MirasolError(f"{shards.folder}: no clip {', '.join(unknown)} in the split {shards.split}")
    number = {key: index for index, key in enumerate(shards.keys)}
    known = [number[key] for key in shards.keys_in(shard)] if shard else range(len(shards))
    index = read_index(shards.folder)
    if not known:
        names = [tar["name"] for tar in index["splits"][shards.split]]
        raise MirasolError(f"{shards.folder}: no shard {shard}: there are {names[0]} to {names[-1]}")
    spread = np.linspace(0, len(known) - 1, min(clips, len(known))).round()
    chosen = [number[key] for key in keys] or [known[int(i)] for i in spread]
    rows = [_clip_row(shards, index) for index in chosen]
    lost = [] if keys or shard else [r for r in index["rejected"] if r["split"] == shards.split]
    rejected = [f"{json.dumps(r['media'], ensure_ascii=False)[1:-1]} [{r['key']}]: {r['reason']}" for r in lost]
    head = f"{shard or shards.split}, {len(rows):,} of {len(known):,} clips · {_shape(shards.spec)}"
    return _write(out, head, rows, rejected)


def training_contact_sheet(
    loader: TrainingLoader, tokenizer: Tokenizer, out: Path, *, clips: int, name: str
) -> list[Path]:
    """Draw the next ``clips`` training samples of the phase ``name``, with the random changes in each.

    Raises:
        MirasolError: a clip is damaged and has no replacement, or ``out`` cannot be written.
    """
    samples, first = loader.samples, loader.order.start
    rows = [_sample_row(loader, samples, tokenizer, number) for number in range(first, first + clips)]
    return _write(out, f"{name}, training samples {first} to {first + clips - 1} · {_shape(loader.form.spec)}", rows)


def _shape(spec: ClipSpec) -> str:
    shape = f"{spec.chunks} chunks of {spec.frames_per_chunk} frames, {spec.size} x {spec.size}"
    return f"{shape}, {spec.fps:g} a second" if spec.sampling == "rate" else f"{shape}, spread over the clip"


def _clip_row(shards: ShardDataset, index: int) -> Row:
    key = shards.keys[index]
    try:
        clip = shards.read(index)
    except DamagedClip as error:
        return Row(key, (("lost", f"damaged: {error.why}"),), (), None)
    meta = clip.meta
    whole = meta["start"] is None and meta["end"] is None
    window = "" if whole else f" {meta['start'] or 0:g} to {meta['end'] or '…'} s"
    texts = tuple(f"{e['prompt']} {' | '.join(e['answers'])}".strip() or "no text" for e in meta["examples"])
    return Row(f"{key}  {meta['media'][-70:]}{window}", tuple(clip_marks(meta, shards.spec)), texts, clip)


def clip_marks(meta: dict[str, Any], spec: ClipSpec) -> list[Mark]:
    """The state of a clip by its JSON; the first mark is ``ok``, or ``partial`` with the usable seconds."""
    marks = [("bad", f"partial: {meta['partial']}") if meta["partial"] else ("good", "ok")]
    for has, chunks, stream in (("has_video", "video_chunks", "picture"), ("has_audio", "audio_chunks", "sound")):
        if not meta[has]:
            marks.append(("note", f"no {stream}"))
        elif meta[chunks] < spec.chunks:
            marks.append(("note", f"{stream} in {meta[chunks]} of {spec.chunks} chunks"))
    if meta.get("silent"):
        marks.append(("note", "silent"))
    seen = spec.chunks * spec.chunk_seconds
    if spec.sampling == "rate" and meta["end"] is not None:
        length = meta["end"] - (meta["start"] or 0.0)
        if length > seen + SAME_TIME:
            marks.append(("note", f"cut short: {seen:g} of {length:g} s"))
    if meta.get("copied"):
        marks.append(("note", "picture copied from the source"))
    return marks


def _sample_row(loader: TrainingLoader, samples: TrainingSamples, tokenizer: Tokenizer, number: int) -> Row:
    sample = samples[number]
    batch = collate([sample], dataclasses.replace(loader.form, width=None))
    texts = []
    for text, weight in zip(sample.texts, batch.text_weight[0].tolist(), strict=True):
        prompt, answer = tokenizer.decode(text.ids[: text.answer]), tokenizer.decode(text.ids[text.answer :])
        texts.append(f"{weight:5.3g} x  {prompt} → {answer}")
    own = {text.example for text in samples.clips.texts[_index(samples, sample)]}
    mine = [line for line, text in zip(texts, sample.texts, strict=True) if text.example in own]
    others = [line for line, text in zip(texts, sample.texts, strict=True) if text.example not in own]
    texts = [line for pair in itertools.zip_longest(mine, others) for line in pair if line]  # alternate under mixup
    epoch, place = divmod(number, len(samples.clips))
    title = f"sample {number}: epoch {epoch}, place {place}  {sample.key}"
    return Row(title, tuple(sample_marks(samples, number, sample)), tuple(texts), sample.clip)


def _index(samples: TrainingSamples, sample: Sample) -> int:
    """The index of a sample's clip among the phase's clips."""
    return [*samples.clips.numbers].index(samples.clips.shard_set.keys.index(sample.key))


def sample_marks(samples: TrainingSamples, number: int, sample: Sample) -> list[Mark]:
    """The random changes and the damage in training sample ``number``, from the draws that made it."""
    marks: list[Mark] = [("lost", f"{d.instead} in place of {d.key} ({d.why})") for d in sample.damage]
    index = _index(samples, sample)
    before = samples.clips.arrays(index)
    settings = samples.settings
    how = settings.augmentation
    if how != OFF:
        chances = augment.draws_of(settings.seed, augment.CHANGE, number).random(augment.NUMBERS)
        present = "video_present" if before.video is not None else "audio_present"
        if by := int(getattr(before, present).sum() - getattr(sample.clip, present).sum()):
            marks.append(("change", f"begun {by} chunk{'s' if by > 1 else ''} later"))
        if before.video is not None and how.crop < 1.0:
            box = draw_box(before.video.shape[-1], how.crop, chances[1:5])
            marks.append(("change", f"crop {box.width} x {box.height} at {box.left}, {box.top}"))
        if before.video is not None and chances[5] < how.flip:
            marks.append(("change", "mirrored"))
        if before.audio is not None and (how.spec_time or how.spec_mel):
            sizes = (before.audio.shape[0] * before.audio.shape[1], before.audio.shape[2])
            most = (how.spec_time, how.spec_mel)
            columns, mels = (int(c * (int(m * n) + 1)) for c, m, n in zip(chances[[6, 8]], most, sizes, strict=True))
            marks.append(("change", f"hidden: {columns} of {sizes[0]} columns, {mels} of {sizes[1]} mels"))
    if sample.shares:
        draws = augment.draws_of(settings.seed, augment.MIX, number)
        share = augment.draw_share(how.mixup, draws)
        key = samples.clips.key(samples.partner(index, number, draws))
        key = next((d.instead for d in sample.damage if d.key == key), key)
        marks.append(("change", f"mixed: {share:.0%} of this, {1 - share:.0%} of {key}"))
    draws = augment.draws_of(settings.seed, augment.SAMPLE, number)
    augment.draw_texts(samples.clips.texts[index], settings.texts_per_clip, settings.tasks, draws)
    missing = augment.draw_missing(settings.mute, settings.blank, draws)
    both = sample.clip.video is not None and sample.clip.audio is not None
    if both and missing != Condition.unchanged:
        marks.append(("change", missing))
    for stream, chunks in (("picture", sample.clip.video_present), ("sound", sample.clip.audio_present)):
        if not chunks.all():
            marks.append(("note", f"{stream} in {chunks.sum()} of {len(chunks)} chunks"))
    return marks or [("good", "unchanged")]


def _write(out: Path, head: str, rows: Sequence[Row], lines: Sequence[str] = ()) -> list[Path]:
    """Write pages of ``rows``, then of ``lines``: ``out``, or several with ``-1``, ``-2`` ... in their names."""
    pages: list[tuple[str, Sequence[Row | str]]] = [(head, rows[i : i + ROWS]) for i in range(0, len(rows), ROWS)]
    title = f"{head} · {len(lines):,} rejected"
    pages += [(title, lines[i : i + LINES]) for i in range(0, len(lines), LINES)]
    written = []
    for number, (title, content) in enumerate(pages, 1):
        path = out
        if len(pages) > 1:
            path = out.with_name(f"{out.stem}-{number:0{len(str(len(pages)))}d}{out.suffix}")
            title += f" · page {number} of {len(pages)}"
        with atomic_write(path) as file:
            _page(title, content).save(file, "PNG")
        written.append(path)
    return written


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSansMono.ttf"), size)


def _page(title: str, content: Sequence[Row | str]) -> Image.Image:
    heights = [ROW if isinstance(item, Row) else LINE + 4 for item in content]
    page = Image.new("RGB", (WIDTH, HEAD + sum(heights)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((8, 8), title, "black", _font(13))
    for item, top in zip(content, itertools.accumulate(heights, initial=HEAD), strict=False):
        if isinstance(item, Row):
            _draw_row(page, draw, item, top)
        else:
            draw.text((8, top), textwrap.shorten(item, 210, placeholder=" …"), "black", _font(9))
    return page


def _draw_row(page: Image.Image, draw: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    draw.text((8, top), row.title, "black", _font(8))
    for drawn, (left, right), absent in ((_frames, FRAMES, "no picture"), (_features, FEATURES, "no sound")):
        picture = None if row.clip is None else drawn(row.clip, (right - left, ROW - 2 * LINE))
        if picture is not None:
            page.paste(picture, (left, top + LINE + 2))
        else:
            draw.text((left + 40, top + ROW // 2), "cannot be read" if row.clip is None else absent, "black", _font(11))
    for number, (colour, text) in enumerate(_wrapped(row)):
        draw.text((TEXTS, top + number * LINE), text, colour, _font(8))


def _frames(clip: Decoded, size: tuple[int, int]) -> Image.Image | None:
    """Up to FRAMES_SHOWN frames of a clip in at most two lines, chunk by chunk."""
    if (video := clip.video) is None:
        return None
    each = max(1, min(video.shape[1], FRAMES_SHOWN // video.shape[0]))  # of a chunk
    chunks = np.linspace(0, video.shape[0] - 1, min(FRAMES_SHOWN, video.shape[0])).round().astype(int)
    frames = np.linspace(0, video.shape[1] - 1, each).round().astype(int)
    blocks = []
    for chunk in chunks:
        rgb = np.stack(
            [av.VideoFrame.from_ndarray(f, "yuv420p").to_ndarray(format="rgb24") for f in video[chunk][frames]]
        )
        if not clip.video_present[chunk]:
            rgb[:] = _stripes(*rgb.shape[1:3])
        rgb = np.pad(rgb, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)  # a line between frames
        blocks.append(np.pad(np.concatenate(list(rgb), axis=1), ((0, 0), (0, GAP), (0, 0)), constant_values=255))
    columns = -(-len(blocks) // 2) if len(blocks) > 1 else 1
    lines = [blocks[low : low + columns] for low in range(0, len(blocks), columns)]
    lines[-1] += [np.full_like(blocks[0], 255)] * (columns - len(lines[-1]))
    strip = np.concatenate([np.concatenate(line, axis=1) for line in lines])
    return ImageOps.contain(Image.fromarray(strip), size)


def _features(clip: Decoded, size: tuple[int, int]) -> Image.Image | None:
    """The log-mel of a clip, low frequencies at the bottom, with a line between chunks."""
    if clip.audio is None:
        return None
    mel = clip.audio.reshape(-1, clip.audio.shape[-1]).T[::-1]
    colours = matplotlib.colormaps["magma"]((mel - SILENCE) / (LOUDEST - SILENCE), bytes=True)[..., :3]
    pixels = np.array(Image.fromarray(colours.copy()).resize(size, Image.Resampling.NEAREST))
    edges = np.linspace(0, size[0], len(clip.audio) + 1).round().astype(int)
    for present, low, high in zip(clip.audio_present, edges, edges[1:], strict=False):
        if not present:
            pixels[:, low:high] = _stripes(size[1], high - low)
        pixels[:, low : low + (low > 0)] = 255
    return Image.fromarray(pixels)


def _stripes(height: int, width: int) -> NDArray[np.uint8]:
    """Grey stripes [height, width, 1] for an absent chunk, which is not a black one."""
    rows, columns = np.indices((height, width))
    return np.where((rows + columns) // 4 % 2, 200, 230).astype(np.uint8)[..., None]


def _wrapped(row: Row) -> Iterator[tuple[str, str]]:
    """(colour, line) of the marks, joined by colour, and of the texts; at most LINES_SHOWN."""
    left = LINES_SHOWN
    for kind in dict.fromkeys(kind for kind, _ in row.marks):
        for line in textwrap.wrap(" · ".join(text for k, text in row.marks if k == kind), 92)[:3]:
            left -= 1
            yield COLOURS[kind], line
    shown = row.texts if len(row.texts) <= left else row.texts[: left - 1]
    for text in shown:
        yield "black", textwrap.shorten(text, 92, placeholder=" …")
    if len(shown) < len(row.texts):
        yield COLOURS["note"], f"… and {len(row.texts) - len(shown)} more"
