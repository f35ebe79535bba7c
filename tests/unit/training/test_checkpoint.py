"""A checkpoint is whole, and only the configuration that made it resumes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mirasol.training.checkpoint import (
    FINGERPRINT,
    AtomicCheckpointIO,
    differences,
    fingerprint,
    resumable_step,
)


def save(path: Path, made_by: object, step: int = 7) -> None:
    AtomicCheckpointIO().save_checkpoint({"global_step": step, FINGERPRINT: made_by, "w": torch.ones(3)}, path)


def test_a_checkpoint_of_the_same_fingerprint_gives_its_step(tmp_path: Path) -> None:
    made_by = fingerprint({"phase": {"lr": 0.1, "tube": (4, 8)}}, {"shards": "ab"})
    save(tmp_path / "c", made_by)
    assert resumable_step(tmp_path / "c", made_by) == (7, [])


def test_no_checkpoint_is_no_reason(tmp_path: Path) -> None:
    assert resumable_step(tmp_path / "c", {}) == (None, [])


def test_what_changed_is_named_with_both_values(tmp_path: Path) -> None:
    save(tmp_path / "c", {"settings": {"lr": 0.1, "seed": 1}})
    step, reasons = resumable_step(tmp_path / "c", {"settings": {"lr": 0.2, "seed": 1}})
    assert step is None
    assert reasons == ["settings.lr (0.1, now 0.2)"]


def test_a_setting_that_one_side_lacks_is_a_difference() -> None:
    assert differences({"a": 1}, {"a": 1, "b": 2}) == ["b (null, now 2)"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_does_not_count(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    step, reasons = resumable_step(tmp_path / "c", {})
    assert step is None
    assert "cannot be read" in reasons[0]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "c", {}, step=7)
    unpicklable = {"global_step": 8, "bad": lambda: None}
    with pytest.raises(Exception, match="lambda"):
        AtomicCheckpointIO().save_checkpoint(unpicklable, tmp_path / "c")
    assert resumable_step(tmp_path / "c", {}) == (7, [])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
