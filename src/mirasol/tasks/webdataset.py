"""Tars in the WebDataset layout that you already have (video2dataset and similar): captions of videos or sounds.

A sample is the consecutive files of one key: a video ``KEY.mp4`` (webm, mkv, ...) or a sound ``KEY.wav`` (flac, mp3,
ogg, ...), with a caption in ``KEY.txt`` or ``KEY.json``. You need not unpack the tars: the import reads them once and
writes the media below ``out/media``, at the end: an import that fails changes nothing. The key becomes the id and the
group.

The summary lists everything left out: samples without a caption or media, tars that are damaged or cut off, sounds
next to a video (its own track counts) and pictures (``KEY.jpg`` is no video; with a sound next to it the sound counts).
Files of other kinds are counted and never read, let alone unpickled.

webdataset groups the files and expands the braces. The standard library reads the tars: webdataset's reader keeps whole
files in memory, takes a truncated tar for a whole one, and runs ``pipe:`` URLs as shell commands.

Source: https://github.com/webdataset/webdataset and https://github.com/iejMac/video2dataset
"""

from __future__ import annotations

import json
import lzma
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError, install, listing
from mirasol.core.files import disk_error
from mirasol.core.progress import Progress
from mirasol.data.manifest import CAPTION_PROMPT, SET, SPLITS, Example, check_media
from mirasol.data.storage import is_url, local_file
from mirasol.tasks.base.annotations import RowError
from mirasol.tasks.base.media_patterns import PICTURES, SOUNDS
from mirasol.tasks.base.splits import split_of
from mirasol.tasks.base.writer import media_linked, refuse_world, write_data

HASH = "hash"  # 80/10/10 by the hash of the key: shards need train and val
CAPTION_KEYS = ("caption", "text")
STILLS = (".jpg", ".jpeg", ".png", ".webp", ".gif")
TEXTS = (".txt", ".json")
MAX_MEDIA, MAX_TEXT = 8 << 30, 1 << 20  # bytes of one file: a compressed tar can expand without limit
MAX_NAME = 200  # bytes of a part of a key
Content = Path | bytes | RowError  # a copy of a medium, a text, a reason against the use of a file

BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass
class Found:
    """The result of reading tars."""

    examples: list[Example] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # samples, each with its tar and the reason
    broken_tars: list[str] = field(default_factory=list)
    sounds_unused: list[str] = field(default_factory=list)  # keys
    pictures_unused: list[str] = field(default_factory=list)  # keys
    files_ignored: Counter[str] = field(default_factory=Counter)  # by suffix


def import_webdataset(
    urls: Sequence[str],
    out: Path,
    split: str = HASH,
    caption_key: str = "",
    *,
    append: bool = False,
    name: str = "webdataset",
) -> dict[str, Any]:
    """Write ``out/media/KEY.*``, ``out/manifest.jsonl`` and the summary ``out/import.json``.

    Args:
        urls: paths or URLs of tars; braces expand, as in ``s3://bucket/{00000..00009}.tar``.
        split: train, val, test, or ``hash``: 80/10/10 by the hash of the key.
        caption_key: key of the caption in the JSON; empty: ``caption`` or ``text``, else the txt file.
        append: keep the data sets that ``out`` holds.
        name: of this data set, among several in one folder.

    Returns:
        The summary. It lists damaged tars and samples.

    Raises:
        MirasolError: a tar does not exist, two samples have one key, no sample is usable, or the disk cannot be
            written. With ``append`` also the errors of :func:`~mirasol.tasks.base.append.append_examples`.
    """
    if split not in (*SPLITS, HASH):
        raise MirasolError(f"--split {split}: expected one of {', '.join((*SPLITS, HASH))}")
    if not name or not SET.fullmatch(name):
        raise MirasolError(f"--set {name!r}: expected letters, digits and _.-")
    refuse_world(out)
    media_linked(out, "copy")  # the media must not go into a linked folder
    try:
        from webdataset.tariterators import group_by_keys
    except ModuleNotFoundError as error:
        raise MirasolError(f"{error}: run {install('train')}") from error
    tars, found = _expanded(urls), Found()
    tar_of: dict[str, str] = {}

    def note_repeated(error: Exception) -> bool:
        found.files_ignored["a repeated name"] += 1
        return True

    try:
        out.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=out, prefix=".import-") as temporary,
            Progress("import webdataset", None, "samples") as progress,
        ):
            folder = Path(temporary)
            for sample in group_by_keys(_files(tars, folder, found), handler=note_repeated):
                key, tar = str(sample["__key__"]), str(sample["__url__"])
                if key in tar_of:
                    raise MirasolError(
                        f"{tar}: the key {key!r} is also in {tar_of[key]}: keys become ids and must differ: import "
                        "tars with equal keys into separate data folders"
                    )
                tar_of[key] = tar
                files = {f".{kind}": content for kind, content in sample.items() if not kind.startswith("__")}
                try:
                    found.examples.append(_example(key, files, folder, split, caption_key))
                    _note_unused(key, files, found)
                except RowError as error:
                    found.skipped.append(_shown(f"{tar}: {key}: {error}"))
                for content in files.values():
                    if isinstance(content, Path):
                        content.unlink(missing_ok=True)
                progress.advance()
            if not found.examples:
                wrong = found.broken_tars + found.skipped
                raise MirasolError(listing(f"no usable sample in {len(tars)} tar(s)", wrong, 10))
            facts = {key: value for key, value in vars(found).items() if key != "examples"}
            facts = {"set": name, "tars": len(tars)} | facts
            return write_data(out, folder / "media", found.examples, "move", facts, append=append)
    except OSError as error:
        raise disk_error(error, out) or error from error


def _expanded(urls: Sequence[str]) -> list[str]:
    """Every tar, in order.

    Raises:
        MirasolError: braces do not match, or local tars do not exist.
    """
    from braceexpand import braceexpand

    try:
        tars = [tar for url in urls for tar in braceexpand(url)]
    except ValueError as error:  # UnbalancedBracesError
        raise MirasolError(f"{error}: expected braces like 'clips/{{00000..00009}}.tar'") from error
    lost = [tar for tar in tars if not is_url(tar) and not Path(tar).is_file()]
    if lost:
        raise MirasolError(listing(f"{len(lost)} of {len(tars)} tars do not exist", lost, 10))
    return tars


EOFHeaderError: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]


class _Header(tarfile.TarInfo):
    """Notes the end mark of a tar as its attribute ``whole``: without it the tar may be cut off."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            tarfile.whole = True
            raise


def _files(tars: Sequence[str], folder: Path, found: Found) -> Iterator[dict[str, Any]]:
    """The files of ``tars`` in the form of ``group_by_keys``, an empty one after each tar.

    ``data`` is its ``Content``; copies are in ``folder``.
    """
    from webdataset.tariterators import base_plus_ext

    for tar in tars:
        key = None
        try:
            with local_file(Path(), tar) as path, tarfile.open(path, mode="r|*", tarinfo=_Header) as archive:
                for member in archive:
                    if member.isreg():
                        key = base_plus_ext(member.name)[0]
                        yield {"fname": member.name, "data": _content(archive, member, folder, found), "__url__": tar}
                if not hasattr(archive, "whole"):
                    raise EOFError("no end mark, it may be cut off")
        except BROKEN as error:
            if isinstance(error, OSError) and (full := disk_error(error, folder)):
                raise full from error
            found.broken_tars.append(_shown(f"{tar}: {error}" + (f", after {key}" if key else "")))
            if key:
                why = RowError("the last before the fault of its tar, it may lack files")
                yield {"fname": f"{key}.cut", "data": why, "__url__": tar}
        yield {}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, found: Found) -> Content:
    suffix = Path(member.name).suffix.lower()
    media = suffix in PICTURES + SOUNDS
    limit = MAX_MEDIA if media else MAX_TEXT
    if not media and suffix not in TEXTS:
        if suffix not in STILLS:
            found.files_ignored[_shown(suffix) or "no suffix"] += 1
        return RowError("not read")
    if member.size > limit:
        return RowError(f"{suffix}: {member.size:,} bytes, more than the allowed {limit:,}")
    source = archive.extractfile(member)
    assert source is not None  # a regular file
    if not media:
        return source.read()
    path = folder / f"{archive.offset}{suffix}"
    with path.open("wb") as target:
        while block := source.read(1 << 20):
            target.write(block)
    return path


def _example(key: str, files: Mapping[str, Content], folder: Path, split: str, caption_key: str) -> Example:
    """The example of a sample, with its medium moved to ``folder/media``.

    Raises:
        RowError: the sample is not usable.
    """
    if ".cut" in files:
        raise _reason(files[".cut"])
    media = _of(files, PICTURES) or _of(files, SOUNDS)
    if not media:
        raise RowError("no video and no sound" + (", only a picture" if _of(files, STILLS) else ""))
    if len(media) > 1:
        raise RowError(f"several media: {', '.join(media)}")
    content, text = files[media[0]], _caption(files, caption_key)
    if not isinstance(content, Path):
        raise _reason(content)
    name = f"media/{key}{content.suffix}"
    if wrong := check_media(name):
        raise RowError(wrong)
    if _shown(key) != key or any(len(part.encode()) > MAX_NAME for part in key.split("/")):
        raise RowError(f"its key is not UTF-8, or has parts of more than {MAX_NAME} bytes")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    content.replace(folder / name)
    return Example(
        id=key, media=name, start=None, end=None, task="caption", prompt=CAPTION_PROMPT, answers=(text,),
        split=split_of(key) if split == HASH else split, group=key, licence="none stated",
    )  # fmt: skip


def _of(files: Mapping[str, Content], suffixes: Sequence[str]) -> list[str]:
    return [kind for kind in files if f".{kind.rpartition('.')[2]}" in suffixes]


def _caption(files: Mapping[str, Content], key: str) -> str:
    keys = (key,) if key else CAPTION_KEYS
    found: Any = None
    if ".json" in files:
        try:
            values = json.loads(_bytes(files[".json"]))
        except (ValueError, RecursionError) as error:
            raise RowError(f".json: not JSON ({error})") from error
        if not isinstance(values, dict):
            raise RowError(f".json: expected an object, got {type(values).__name__}")
        found = next((values[name] for name in keys if values.get(name)), None)
    if not key and found is None and ".txt" in files:
        try:
            found = _bytes(files[".txt"]).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise RowError(f".txt: not UTF-8 ({error.reason} at byte {error.start})") from error
    if not found:
        raise RowError(
            f"no caption: expected a text under {' or '.join(keys)} of its JSON" + ("" if key else ", or a txt")
        )
    if not isinstance(found, str) or not found.strip() or _shown(found) != found:
        raise RowError(f"caption: expected a text, got {str(found)[:50]!a}")
    return found.strip()


def _note_unused(key: str, files: Mapping[str, Content], found: Found) -> None:
    if _of(files, PICTURES) and _of(files, SOUNDS):
        found.sounds_unused.append(key)
    if _of(files, STILLS):
        found.pictures_unused.append(key)


def _bytes(content: Content) -> bytes:
    if not isinstance(content, bytes):
        raise _reason(content)
    return content


def _reason(content: Content) -> RowError:
    return content if isinstance(content, RowError) else RowError("not usable")


def _shown(text: str) -> str:
    """``text`` in UTF-8, with escapes for halves of characters: JSON and names in tars can contain them."""
    return text.encode(errors="backslashreplace").decode()
