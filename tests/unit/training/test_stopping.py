"""SIGTERM is a flag while steps are at stake, and ends the process at once elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import pytorch_lightning as pl

from mirasol.training.stopping import STATUS, Stopping, take_signals


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_between_steps_it_is_a_flag() -> None:
    with Stopping() as stopping:
        stopping.begin(1, 60.0)
        assert not stopping.agreed()
        ask()
        assert stopping.agreed()


def test_before_the_first_step_it_ends_the_process() -> None:
    with pytest.raises(SystemExit) as leaving, Stopping():
        ask()
    assert leaving.value.code == STATUS == 143


def test_after_the_last_step_it_ends_the_process() -> None:
    with pytest.raises(SystemExit), Stopping() as stopping:
        stopping.begin(1, 60.0)
        stopping.end()
        ask()


def test_a_process_that_leaves_is_not_ended_before_its_status() -> None:
    with pytest.raises(SystemExit), Stopping():
        ask()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_the_handler_from_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stopping():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_lightning_installs_no_handler_and_broadcasts_nothing() -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    take_signals(trainer)
    before = signal.getsignal(signal.SIGTERM)
    trainer._signal_connector.register_signal_handlers()
    assert signal.getsignal(signal.SIGTERM) == before
    loop = trainer.fit_loop.epoch_loop
    assert hasattr(type(loop), "_broadcast_sigterm_tensor"), "Lightning changed: look for its broadcast of each step"
    assert "_broadcast_sigterm_tensor" in vars(loop)
