"""`mirasol bundle slim`: a copy for a repository, whole, small and with its answers on record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bundle import tiny_bundle

from mirasol.core.errors import MirasolError
from mirasol.export import slim as module
from mirasol.export.slim import slim
from mirasol.runtime.contract import read_contract
from mirasol.runtime.samples import read_samples


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model has no space for the world's questions."""
    monkeypatch.setattr(
        module, "_texts", lambda _: [module.Text("qa", name, "red bell", "red") for name in module.ASKED]
    )


@pytest.mark.usefixtures("asked")
def test_a_copy_has_one_opset_and_samples_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "small"
    first, again = slim(tiny_bundle(), out), slim(tiny_bundle(), out)
    assert first == again == read_contract(out)
    assert list(first.opsets) == [str(first.opset)]
    assert not list(out.glob("*opset*"))
    samples = read_samples(out / "samples")
    assert [one.file for one in samples] == list(module.ASKED.values())
    assert read_contract(tiny_bundle()).sha256 in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("asked")
def test_a_copy_that_is_too_large_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "small"
    before = slim(tiny_bundle(), out)
    monkeypatch.setattr(module, "LARGEST", 1000)
    with pytest.raises(MirasolError, match="give a bundle of lower precision"):
        slim(tiny_bundle(), out)
    assert read_contract(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MirasolError, match="holds something else than a bundle"):
        slim(tiny_bundle(), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("rows", ['{"a": 1}', "[1]", '[{"file": "../x.mp4"}]', '[{"file": 3}]', "[", '[{"name": "x"}]'])
def test_a_damaged_list_of_samples_is_one_error(tmp_path: Path, rows: str) -> None:
    (tmp_path / "samples.json").write_text(rows)
    with pytest.raises(MirasolError, match="is damaged"):
        read_samples(tmp_path)


def test_a_sample_that_was_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "samples.json").write_text(json.dumps([{"file": "a.mp4", "sha256": "0" * 64}]))
    with pytest.raises(MirasolError, match="is not the file"):
        read_samples(tmp_path)
