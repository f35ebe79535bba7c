"""A save runs beside the steps: of a copy, one at a time, whole or not there, and its error reaches the run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from mirasol.training.ranks import Ranks
from mirasol.training.saving import Saving

TESTS = Path(__file__).parents[2]


def test_what_the_next_step_changes_is_not_in_the_save() -> None:
    weights, figures, found = torch.ones(3), {"steps": [1]}, []
    saving, stepped = Saving(), threading.Event()

    def write(copied: Any) -> None:
        stepped.wait(10)
        found.append(copied)

    saving.begin({"w": weights, "figures": figures}, write)
    weights.zero_()
    figures["steps"].append(2)
    stepped.set()
    saving.wait()
    assert torch.equal(found[0]["w"], torch.ones(3))
    assert found[0]["figures"] == {"steps": [1]}


def test_a_step_goes_on_while_the_save_is_written() -> None:
    saving, stepped = Saving(), threading.Event()
    saving.begin({}, lambda copied: stepped.wait(10))  # would never end in the step's own thread
    saving.check()
    stepped.set()
    saving.wait()


def test_the_next_save_waits_for_the_one_before_and_takes_its_memory() -> None:
    saving, order, places = Saving(), [], []

    def write(copied: Any) -> None:
        places.append(copied["w"].data_ptr())
        order.append(float(copied["w"]))

    for value in (1.0, 2.0, 3.0):
        saving.begin({"w": torch.tensor(value)}, write)
    saving.wait()
    assert order == [1.0, 2.0, 3.0]
    assert len(set(places)) == 1


def test_a_copied_state_keeps_its_containers() -> None:
    state, found = OrderedDict(w=torch.ones(1)), []
    state._metadata = {"": 1}  # type: ignore[attr-defined]
    saving = Saving()
    saving.begin([state, (1, "a")], found.append)
    saving.wait()
    assert type(found[0][0]) is OrderedDict and found[0][0]._metadata == {"": 1}
    assert found[0][1] == (1, "a")


@pytest.mark.parametrize("asks", ["check", "wait", "begin"])
def test_the_error_of_a_save_is_raised_once_in_the_step(asks: str) -> None:
    saving = Saving()

    def write(copied: Any) -> None:
        raise OSError("full")

    saving.begin({}, write)
    assert saving._thread is not None
    saving._thread.join()
    with pytest.raises(OSError, match="full"):
        getattr(saving, asks)(*([{}, write] if asks == "begin" else []))
    saving.wait()


def test_nothing_is_tidied_after_a_save_that_failed() -> None:
    saving, tidied = Saving(), []
    saving.after = lambda: tidied.append(1)
    saving.begin({}, lambda copied: 1 / 0)
    saving.finish()
    assert tidied == []
    with pytest.raises(ZeroDivisionError):
        saving.wait()


def ranks(store: Any, rank: int) -> Ranks:
    found = Ranks()
    found.store, found.rank, found.world, found.limit = store, rank, 2, 60.0
    return found


def test_the_first_process_waits_for_the_rows_of_the_others() -> None:
    store, order = HashStore(), []
    first, second = (Saving(ranks(store, rank)) for rank in (0, 1))

    def written(copied: Any) -> None:
        first.meet("rows")
        order.append("marker")

    first.begin({}, written)
    order.append("rows of the second")
    second.meet("rows")
    first.wait()
    assert order == ["rows of the second", "marker"]


def test_a_run_that_fails_waits_for_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of 60 s does not count then: the other process may be gone."""
    monkeypatch.setattr("mirasol.training.ranks.SILENT", 0.0)
    saving = Saving(ranks(HashStore(), 0))
    saving.begin({}, lambda copied: saving.meet("rows"))
    saving.finish()
    with pytest.raises(ConnectionError, match="process 1 did not say its rows/1"):
        saving.check()


@pytest.mark.parametrize(
    ("processes", "kills"), [(2, 3), *(pytest.param(n, 50, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_a_kill_at_any_moment_of_a_save_leaves_usable_checkpoints(tmp_path: Path, processes: int, kills: int) -> None:
    done = subprocess.run(
        [sys.executable, str(TESTS / "support/kill_saves.py"), str(tmp_path), str(processes), str(kills)],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["unusable"], found["missing"]) == (0, []), done.stderr
