"""Names and addresses of sources: each opens the right one, or is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.media import TINY_CLIP, write_media

from mirasol.core.errors import MirasolError
from mirasol.runtime.sources.open import is_live, open_stream, seconds_of


@pytest.mark.parametrize(
    "address", ["http://me:secret@host/a.mp4", "https://host/live.m3u8?key=secret", "srt://host:9"]
)
@pytest.mark.parametrize("form", [str, Path])  # `mirasol stream`, `mirasol answer`
def test_an_address_of_another_kind_is_refused_with_what_to_do(address: str, form: type) -> None:
    with pytest.raises(MirasolError, match=r"^(https?|srt)://…: .*rtsp:// and rtsps://.*ffmpeg -i") as error:
        open_stream(form(address), TINY_CLIP)
    assert "secret" not in str(error.value)


def test_a_file_whose_name_looks_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_media(tmp_path / "http:" / "clip.mkv", frames=16)
    monkeypatch.chdir(tmp_path)
    assert len(list(open_stream("http://clip.mkv", TINY_CLIP))) == 8


def test_a_model_of_whole_files_takes_no_camera() -> None:
    spread = dataclasses.replace(TINY_CLIP, sampling="spread")
    for source in ("synthetic", "/dev/video0"):
        with pytest.raises(MirasolError, match="name one file"):
            open_stream(source, spread)


@pytest.mark.parametrize(("text", "seconds"), [("2", 2.0), ("2s", 2.0), ("500ms", 0.5), ("1.5 m", 90.0)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0", "-1", "2h", "1e400", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        seconds_of(text)


def test_sources_are_told_apart() -> None:
    assert [is_live(s) for s in ("rtsp://a/b", "rtsps://a", "/dev/video0", "/dev/null", "clip.mp4")] == [True] * 3 + [
        False
    ] * 2
