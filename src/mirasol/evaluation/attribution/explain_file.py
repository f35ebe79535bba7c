"""`mirasol explain`: a question about one clip, its answer, and a picture of where the model looked."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded, audio_shape, video_shape
from mirasol.data.loading.loader import collate
from mirasol.data.loading.samples import Sample
from mirasol.data.loading.texts import Text
from mirasol.evaluation.attribution.draw import draw
from mirasol.evaluation.pictures import data_uri
from mirasol.media.clip import ClipSpec
from mirasol.media.container import MediaError
from mirasol.media.decode import decode_clip
from mirasol.media.log_mel import SILENCE, black_frame, clip_audio
from mirasol.model.attribution import look_back
from mirasol.model.mirasol import Mirasol
from mirasol.tokenizer import EOS, SPACE, Tokenizer
from mirasol.training.weights import load_model

SPLITS = ("test", "val", "train")
TOKENS_SHOWN = 12


@dataclass(frozen=True)
class Explained:
    """An answer and what each of its tokens looked at."""

    question: str
    answer: str
    pieces: list[str]  # A texts, one a token
    chunks: NDArray[np.float32]  # [A, T], attention, rows sum to 1
    features: NDArray[np.float32]  # [A, T, n], what counted, video before audio, each sums to 1
    video_tokens: int

    @property
    def picture(self) -> NDArray[np.float32]:
        """[A]: share of the picture in what counted; the rest is the sound's."""
        shares: NDArray[np.float32] = self.features[:, :, : self.video_tokens].sum((1, 2))
        return shares


def explain(
    clip: str,
    question: str,
    *,
    weights: Path,
    tokenizer: Path,
    shards: Path,
    spec: ClipSpec,
    max_answer: int,
    out: Path,
) -> Explained:
    """Answer ``question`` about ``clip`` and write the picture to ``out``.

    Args:
        clip: a media file, whose beginning is taken as in training; or the key of a clip in ``shards``.
        weights: folder of a trained model.
        tokenizer: ``tokenizer.json`` of the same training.
        spec: how a media file is cut into chunks.
        max_answer: longest answer in tokens.
        out: a .png, or an .html with the picture and its numbers.

    Raises:
        MirasolError: the clip, the weights or the tokenizer cannot be used or do not fit together, the question is
            empty or too long, or ``out`` is neither .png nor .html.
    """
    if out.suffix not in (".png", ".html"):
        raise MirasolError(f"--out {out}: expected a name that ends in .png or .html")
    if not question.strip():
        raise MirasolError("the question is empty: ask, for example, 'Classify the video audio clip.'")
    shown = _read(clip, shards, spec)
    model, words = load_model(weights).eval(), Tokenizer.load(tokenizer)
    if words.vocabulary != model.config.vocabulary:
        raise MirasolError(
            f"{tokenizer} has {words.vocabulary} pieces, the model in {weights} {model.config.vocabulary}: they are "
            "not of one training; name the other folder with --weights"
        )
    try:
        explained = look(model, words, shown, spec, question, max_answer)
    except ValueError as error:
        raise MirasolError(f"{clip}: does not fit the model in {weights}: {error}") from error
    picture = draw(explained, shown, model)
    with atomic_write(out) as file:
        file.write(picture if out.suffix == ".png" else _page(explained, picture).encode("utf-8"))
    return explained


def look(model: Mirasol, words: Tokenizer, clip: Decoded, spec: ClipSpec, question: str, max_answer: int) -> Explained:
    """The greedy answer to ``question`` and where each of its tokens looked.

    Raises:
        ValueError: the clip does not fit the model.
        MirasolError: the question leaves no room for an answer.
    """
    prompt = words.text_ids(question, None)
    room = min(max_answer, model.config.max_text - len(prompt))
    if room < 1:
        raise MirasolError(f"the question takes {len(prompt)} tokens, the text cache holds {model.config.max_text}")
    text = Text(np.array(prompt, np.int32), len(prompt), "qa", "")
    batch = collate(
        [Sample("", clip, [text])], spec=spec, length=model.config.max_text, width=1, tasks=("qa",), caption_weight=1.0
    )
    with torch.no_grad():
        encoded = model.encode(batch)
        lengths = torch.tensor([[len(prompt)]])
        found = model.generate(encoded.h, encoded.present, torch.tensor([[prompt]]), lengths, room)[0, 0].tolist()
    ids = (found[: found.index(EOS)] if EOS in found else found)[:TOKENS_SHOWN] or [EOS]  # an empty answer looks too
    looks = look_back(model, batch, torch.tensor(prompt + ids), len(prompt))
    return Explained(
        question=question,
        answer=words.decode(found),
        pieces=[words.pieces[i].replace(SPACE, " ").strip() or words.pieces[i] for i in ids],
        chunks=looks.chunks.numpy(),
        features=looks.features.numpy(),
        video_tokens=model.video_tubes.tokens,
    )


def _read(clip: str, shards: Path, spec: ClipSpec) -> Decoded:
    """A media file, or a clip of the shards."""
    if Path(clip).is_file():
        try:
            return _decoded(Path(clip), spec)
        except MediaError as error:
            raise MirasolError(str(error)) from error
    if shards.is_dir():
        for split in SPLITS:
            try:
                found = ShardDataset(shards, split)
            except MirasolError:  # a split without clips
                continue
            if clip in found.keys:
                return found.arrays(found.keys.index(clip))
    raise MirasolError(f"{clip}: no such file, and no clip of that key in {shards}")


def _decoded(path: Path, spec: ClipSpec) -> Decoded:
    """The beginning of a media file as training would see it; chunks past its end are missing."""
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


def _page(explained: Explained, picture: bytes) -> str:
    """The picture and the shares of the chunks, on one page that needs no network."""
    head = "".join(f"<th>chunk {t}</th>" for t in range(explained.chunks.shape[1]))
    rows = "".join(
        f"<tr><th>{html.escape(piece)}</th>{''.join(f'<td>{share:.1%}</td>' for share in row)}</tr>"
        for piece, row in zip(explained.pieces, explained.chunks.tolist(), strict=True)
    )
    question, answer = html.escape(explained.question), html.escape(explained.answer)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{question}</title>"
        "<style>body{font:15px sans-serif;max-width:1240px;margin:2em auto}img{max-width:100%}"
        "td,th{padding:.2em .8em;text-align:right}</style>"
        f"<h1>{question}</h1><p>{answer or '(nothing)'}</p><img alt='where the model looked' src='{data_uri(picture)}'>"
        f"<table><tr><th></th>{head}</tr>{rows}</table></html>\n"
    )
