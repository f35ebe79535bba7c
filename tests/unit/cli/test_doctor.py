"""The doctor names what is missing and the command that fixes it."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from mirasol.cli import doctor
from mirasol.cli.doctor import GIB, examine, locked
from mirasol.core.errors import MirasolError
from mirasol.media import container

Usage = namedtuple("Usage", "total used free")


def findings(root: Path, subject: str) -> list[doctor.Finding]:
    return [finding for finding in examine(root) if finding.subject == subject]


def test_a_package_that_the_lock_names_and_that_is_not_installed_is_missing(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("# pins\nnumpy==0.0.1\nno-such-package==1.0\n", encoding="utf-8")
    missing, other = findings(tmp_path, "packages")
    assert (missing.state, missing.fix) == ("missing", "make setup")
    assert "no-such-package" in missing.text
    assert other.state == "note"
    assert "locked 0.0.1" in other.text


def test_the_lock_is_read_without_its_comments(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("# a comment\nav==18.1.0\n\nruamel.yaml==0.19.1\n", encoding="utf-8")
    assert locked(tmp_path / "requirements.lock") == {"av": "18.1.0", "ruamel.yaml": "0.19.1"}


def test_a_python_outside_the_range_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHONS", ((4, 0), (4, 2)))
    (finding,) = findings(tmp_path, "python")
    assert (finding.state, finding.fix) == ("missing", "make setup PYTHON=/path/to/python4.2")
    assert finding.text.endswith("expected 4.0 to 4.2")


@pytest.mark.parametrize(("free", "state"), [(9 * GIB, "ok"), (3 * GIB, "note"), (GIB // 2, "missing")])
def test_free_disk_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free))
    (finding,) = findings(tmp_path, "free disk")
    assert finding.state == state


def test_a_missing_codec_is_named_with_its_use_and_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "has_codec", lambda name, mode: name != "libx264")
    (finding,) = findings(tmp_path, "codecs")
    assert finding.state == "missing"
    assert "libx264 encoder" in finding.text
    assert finding.fix.startswith("pip install")


def test_outside_a_project_nothing_of_dvc_is_asked(tmp_path: Path) -> None:
    assert {f.subject for f in examine(tmp_path)} & {"git", "dvc", "data"} == set()


def test_a_project_without_version_control_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").touch()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = {f.subject: f for f in examine(tmp_path)}
    assert (found["git"].state, found["dvc"].fix) == ("missing", "dvc init")


@pytest.mark.parametrize(("name", "mode", "use"), container.CODECS)
def test_pyav_has_every_codec_that_is_needed(name: str, mode: container.Mode, use: str) -> None:
    container.require_codec(name, mode)


def test_a_missing_codec_is_a_clear_error() -> None:
    with pytest.raises(MirasolError, match=r"no nonesuch encoder: install .*`pip install"):
        container.require_codec("nonesuch", "w")
