"""An upload that cannot be decoded is refused with the reason, without the server's path."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
from support.media import TINY_CLIP

from mirasol.media.container import MediaError
from mirasol.serve.limits import Limits
from mirasol.serve.uploads import Upload


def test_the_reason_of_any_fault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.mov"

    def fails(*_: object) -> NoReturn:
        raise ValueError(f"{path}: 29 is not a valid Type")

    monkeypatch.setattr(Upload, "_ready", lambda self: None)
    monkeypatch.setattr(Upload, "_work", fails)
    with ThreadPoolExecutor(1) as threads, pytest.raises(MediaError) as error:
        asyncio.run(Upload(path, TINY_CLIP, Limits(), threads).open())
    assert str(error.value) == "the decoder failed on the upload: the upload: 29 is not a valid Type"
