"""``mirasol data look``: contact sheets of clips as they are at rest, or as a training phase gets them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.data.loading import augment
from mirasol.data.loading.augment import OFF
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.failures import DamagedClip
from mirasol.data.loading.loader import TrainingLoader, collate
from mirasol.data.loading.reader import read_index
from mirasol.data.loading.samples import Sample, TrainingSamples
from mirasol.data.sheet import Row, write_sheet
from mirasol.media.clip import ClipSpec
from mirasol.media.resample import SAME_TIME
from mirasol.media.yuv import draw_box
from mirasol.tokenizer import Tokenizer

Mark = tuple[str, str]


def look(
    shard_set: ShardDataset, out: Path, *, clips: int = 12, keys: Sequence[str] = (), shard: str | None = None
) -> list[Path]:
    """Draw ``clips`` clips spread evenly over the split or over one of its tars, or the clips ``keys``.

    Behind them, unless ``keys`` choose, come the clips of the split that were rejected, with their reasons.

    Returns:
        The pages that were written.

    Raises:
        MirasolError: a key or the shard is not in the split, or ``out`` cannot be written.
    """
    unknown = sorted(set(keys) - set(shard_set.keys))
    if unknown:
        raise MirasolError(f"{shard_set.folder}: no clip {', '.join(unknown)} in the split {shard_set.split}")
    number = {key: index for index, key in enumerate(shard_set.keys)}
    known = [number[key] for key in _keys_of(shard_set, shard)] if shard else range(len(shard_set))
    spread = np.linspace(0, len(known) - 1, min(clips, len(known))).round()
    chosen = [number[key] for key in keys] or [known[int(i)] for i in spread]
    rows = [_row(shard_set, index) for index in chosen]
    rejected = [] if keys or shard else _rejected(shard_set)
    head = f"{shard or shard_set.split}, {len(rows):,} of {len(known):,} clips · {_cut(shard_set.spec)}"
    return write_sheet(out, head, rows, rejected)


def look_at_training(loader: TrainingLoader, tokenizer: Tokenizer, out: Path, *, clips: int, name: str) -> list[Path]:
    """Draw what the phase ``name`` gets as its next ``clips`` training samples, and what chance made of them.

    Raises:
        MirasolError: a clip is damaged and nothing takes its place, or ``out`` cannot be written.
    """
    samples, first = loader.samples, loader.order.start
    assert isinstance(samples, TrainingSamples)
    rows = [_training_row(loader, samples, tokenizer, number) for number in range(first, first + clips)]
    head = f"{name}, training samples {first} to {first + clips - 1} · {_cut(samples.spec)}"
    return write_sheet(out, head, rows)


def _cut(spec: ClipSpec) -> str:
    how = f"{spec.chunks} chunks of {spec.frames_per_chunk} frames, {spec.size} x {spec.size}"
    return f"{how}, {spec.fps:g} a second" if spec.sampling == "rate" else f"{how}, spread over the clip"


def _row(shard_set: ShardDataset, index: int) -> Row:
    key = shard_set.keys[index]
    try:
        clip = shard_set.read(index)
    except DamagedClip as error:
        return Row(key, (("lost", f"damaged: {error.why}"),), (), None)
    meta = clip.meta
    window = (
        "" if meta["start"] is None and meta["end"] is None else f" {meta['start'] or 0:g} to {meta['end'] or '…'} s"
    )
    texts = tuple(f"{e['prompt']} {' | '.join(e['answers'])}" for e in meta["examples"])
    return Row(f"{key}  {meta['media'][-70:]}{window}", tuple(status_of_clip(meta, shard_set.spec)), texts, clip)


def status_of_clip(meta: dict[str, Any], spec: ClipSpec) -> list[Mark]:
    """What the JSON of a clip says about its state, the first mark being ``ok`` or ``partial`` up to where."""
    marks = [("bad", f"partial: {meta['partial']}") if meta["partial"] else ("good", "ok")]
    for has, chunks, what in (("has_video", "video_chunks", "picture"), ("has_audio", "audio_chunks", "sound")):
        if not meta[has]:
            marks.append(("note", f"no {what}"))
        elif meta[chunks] < spec.chunks:
            marks.append(("note", f"{what} in {meta[chunks]} of {spec.chunks} chunks"))
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


def _keys_of(shard_set: ShardDataset, shard: str) -> list[str]:
    keys = shard_set.keys_in(shard)
    if not keys:
        names = [tar["name"] for tar in read_index(shard_set.folder)["splits"][shard_set.split]]
        raise MirasolError(f"{shard_set.folder}: no shard {shard}: there are {names[0]} to {names[-1]}")
    return keys


def _rejected(shard_set: ShardDataset) -> list[str]:
    lost = [r for r in read_index(shard_set.folder)["rejected"] if r["split"] == shard_set.split]
    return [f"{json.dumps(r['media'], ensure_ascii=False)[1:-1]} [{r['key']}]: {r['reason']}" for r in lost]


def _training_row(loader: TrainingLoader, samples: TrainingSamples, tokenizer: Tokenizer, number: int) -> Row:
    sample = samples[number]
    batch = collate(
        [sample], spec=samples.spec, length=samples.max_text, width=None, tasks=samples.tasks,
        caption_weight=loader.caption_weight,
    )  # fmt: skip
    texts = []
    for text, weight in zip(sample.texts, batch.text_weight[0].tolist(), strict=True):
        prompt, answer = tokenizer.decode(text.ids[: text.answer]), tokenizer.decode(text.ids[text.answer :])
        texts.append(f"{weight:5.3g} x  {prompt} → {answer}")
    own = {text.example for text in samples.clips.texts[_index(samples, sample)]}
    mine = [line for line, text in zip(texts, sample.texts, strict=True) if text.example in own]
    others = [line for line, text in zip(texts, sample.texts, strict=True) if text.example not in own]
    texts = [line for pair in itertools.zip_longest(mine, others) for line in pair if line]  # of a mixture: in turn
    epoch, place = divmod(number, len(samples.clips))
    title = f"sample {number}: epoch {epoch}, place {place}  {sample.key}"
    return Row(title, tuple(changes(samples, number, sample)), tuple(texts), sample.clip)


def _index(samples: TrainingSamples, sample: Sample) -> int:
    """Which of the phase's clips a sample shows."""
    return samples.clips.numbers.index(samples.clips.shard_set.keys.index(sample.key))


def changes(samples: TrainingSamples, number: int, sample: Sample) -> list[Mark]:
    """What chance and damage made of training sample ``number``, told from the draws that made it."""
    marks: list[Mark] = [("lost", f"{d.instead} in place of {d.key} ({d.why})") for d in sample.damage]
    index = _index(samples, sample)
    before = samples.clips.arrays(index)
    how = samples.augmentation
    if how != OFF:
        chances = augment.other_draws(samples.seed, augment.CHANGE, number).random(augment.CHANCES)
        present = "video_present" if before.video is not None else "audio_present"
        if by := int(getattr(before, present).sum() - getattr(sample.clip, present).sum()):
            marks.append(("change", f"begun {by} chunk{'s' if by > 1 else ''} later"))
        if before.video is not None and how.crop < 1.0:
            box = draw_box(samples.spec.size, how.crop, chances[1:5])
            marks.append(("change", f"crop {box.width} x {box.height} at {box.left}, {box.top}"))
        if before.video is not None and chances[5] < how.flip:
            marks.append(("change", "mirrored"))
        if before.audio is not None and (how.spec_time or how.spec_mel):
            sizes = (before.audio.shape[0] * before.audio.shape[1], before.audio.shape[2])
            most = (how.spec_time, how.spec_mel)
            columns, mels = (int(c * (int(m * n) + 1)) for c, m, n in zip(chances[[6, 8]], most, sizes, strict=True))
            marks.append(("change", f"hidden: {columns} of {sizes[0]} columns, {mels} of {sizes[1]} mels"))
    if sample.shares:
        draws = augment.other_draws(samples.seed, augment.MIX, number)
        share = augment.draw_share(how.mixup, draws)
        partner = (index + 1 + int(draws.integers(len(samples.clips) - 1))) % len(samples.clips)
        key = samples.clips.key(partner)
        key = next((d.instead for d in sample.damage if d.key == key), key)
        marks.append(("change", f"mixed: {share:.0%} of this, {1 - share:.0%} of {key}"))
    draws = augment.sample_draws(samples.seed, number)
    augment.draw_texts(samples.clips.texts[index], samples.texts_per_clip, samples.tasks, draws)
    missing = augment.draw_missing(samples.mute, samples.blank, draws)
    both = sample.clip.video is not None and sample.clip.audio is not None
    if both and missing != "none":
        marks.append(("change", missing))
    for what, chunks in (("picture", sample.clip.video_present), ("sound", sample.clip.audio_present)):
        if not chunks.all():
            marks.append(("note", f"{what} in {chunks.sum()} of {len(chunks)} chunks"))
    return marks or [("good", "unchanged")]
