"""Files are written whole or not at all, also where the disk refuses. No mount and no root needed."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, disk_error, write_json

REFUSALS = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
}


@pytest.mark.parametrize("number", REFUSALS)
def test_a_folder_that_refuses_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(MirasolError, match=rf"cannot write .*report\.json: {REFUSALS[number]}"):
        write_json(tmp_path / "report.json", {})
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path, "w") as file:
        file.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_error_of_the_system_keeps_its_kind() -> None:
    assert disk_error(OSError(errno.ENOENT, "no such file"), Path("x")) is None


def test_a_disk_that_fills_under_torch_save_is_named(tmp_path: Path) -> None:
    def save() -> None:  # as torch.save does
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError("unexpected pos 521664 vs 521616")

    with pytest.raises(MirasolError, match="the disk is full"), atomic_write(tmp_path / "x.ckpt"):
        save()
