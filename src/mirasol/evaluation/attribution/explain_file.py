"""`mirasol explain`: a question about one clip, its answer, and a picture of the attribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded, audio_shape, video_shape
from mirasol.data.loading.view import view_of
from mirasol.evaluation.attribution.attribute import Attribution, attribute
from mirasol.evaluation.attribution.draw import draw
from mirasol.evaluation.evaluate import Evaluator
from mirasol.evaluation.pictures import data_uri
from mirasol.evaluation.report.html import render
from mirasol.media.clip import ClipSpec, View
from mirasol.media.container import MediaError
from mirasol.media.decode import decode_clip
from mirasol.media.log_mel import SILENCE, black_frame, clip_audio

SPLITS = ("test", "val", "train")


def explain(evaluator: Evaluator, clip: str, question: str, spec: ClipSpec, out: Path) -> Attribution:
    """Answer ``question`` about ``clip`` and write the picture to ``out``.

    Args:
        evaluator: the model, on the CPU, and the shards.
        clip: a media file, of which the beginning is taken as in training; or the key of a clip in the shards.
        spec: how to cut a media file into chunks.
        out: a .png, or an .html with the picture and its numbers.

    Raises:
        MirasolError: the clip, the weights or the tokenizer cannot be used or do not fit together, the question is
            empty or too long, or ``out`` is neither .png nor .html.
    """
    if out.suffix not in (".png", ".html"):
        raise MirasolError(f"--out {out}: expected a name that ends in .png or .html")
    if not question.strip():
        raise MirasolError("the question is empty: ask, for example, 'Classify the video audio clip.'")
    model, words = evaluator.model, evaluator.words
    view = view_of(model.config)
    try:
        spec = view.of(spec)
    except ValueError as error:
        raise MirasolError(f"the section clip does not fit the model in {evaluator.weights}: {error}") from error
    shown = _read(clip, evaluator.shards, spec, view)
    try:
        found = attribute(model, words, shown, spec, question, evaluator.spec.max_answer)
    except ValueError as error:
        raise MirasolError(f"{clip}: does not fit the model in {evaluator.weights}: {error}") from error
    picture = draw(found, shown)
    if out.suffix == ".html":
        picture = render("explain.html", found=found, picture=data_uri(picture)).encode("utf-8")
    with atomic_write(out) as file:
        file.write(picture)
    return found


def _read(clip: str, shards: Path, spec: ClipSpec, view: View) -> Decoded:
    """A media file, or a clip of the shards."""
    if Path(clip).is_file():
        try:
            return _decoded(Path(clip), spec)
        except MediaError as error:
            raise MirasolError(str(error)) from error
    if shards.is_dir():
        for split in SPLITS:
            try:
                found = ShardDataset(shards, split, view=view)
            except MirasolError:  # a split without clips
                continue
            if clip in found.keys:
                return found.arrays(found.keys.index(clip))
    raise MirasolError(f"{clip}: no such file, and no clip of that key in {shards}")


def _decoded(path: Path, spec: ClipSpec) -> Decoded:
    """The beginning of a media file as in training; chunks past its end are missing."""
    found = decode_clip(path, None, None, spec)
    video = audio = None
    if found.video is not None:
        video = np.broadcast_to(black_frame(spec.size), video_shape(spec)).copy()
        seen = found.video.reshape(found.chunks, *video.shape[1:])
        video[: found.video_chunks] = seen[: found.video_chunks]
    if found.waveform is not None:
        audio = np.full(audio_shape(spec), SILENCE, np.float32)
        audio[: found.audio_chunks] = clip_audio(found.waveform, spec, found.chunk_seconds, found.audio_chunks)
    chunks = np.arange(spec.chunks)
    return Decoded(video, audio, chunks < found.video_chunks, chunks < found.audio_chunks)
