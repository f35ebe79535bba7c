"""A checkpoint is whole, and says which configuration made it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mirasol.core.errors import MirasolError
from mirasol.training.checkpoint import ANYWAY, FINGERPRINT, FINISHED, AtomicCheckpointIO, differences, read_facts


def save(path: Path, made_by: object, step: int = 7) -> None:
    facts = {"global_step": step, FINGERPRINT: made_by, FINISHED: False, ANYWAY: []}
    AtomicCheckpointIO().save_checkpoint(facts | {"w": torch.ones(3)}, path)


def test_what_changed_is_named_with_both_values() -> None:
    old, new = ({"settings": {"lr": rate, "seed": 1}} for rate in (0.1, 0.2))
    assert differences(old, new) == ["settings.lr (0.1, now 0.2)"]


def test_a_setting_that_one_side_lacks_is_a_difference() -> None:
    assert differences({"a": 1}, {"a": 1, "b": 2}) == ["b (null, now 2)"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_has_no_facts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(MirasolError):
        read_facts(tmp_path / "c")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "c", {}, step=7)
    unpicklable = {"global_step": 8, "bad": lambda: None}
    with pytest.raises(Exception, match="lambda"):
        AtomicCheckpointIO().save_checkpoint(unpicklable, tmp_path / "c")
    assert read_facts(tmp_path / "c").step == 7
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
