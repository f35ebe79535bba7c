"""Every data set by name: its annotations (`mirasol data import`) and its score (`mirasol score` and `evaluate`)."""

from __future__ import annotations

from typing import TypeVar

from mirasol.core.errors import MirasolError
from mirasol.tasks import (
    activitynet_qa,
    audiocaps,
    audioset,
    epic_sounds,
    generic,
    kinetics_sounds,
    msrvtt_qa,
    msvd_qa,
    nextqa,
    vggsound,
    webvid,
    world,
)
from mirasol.tasks.base.importer import Adapter
from mirasol.tasks.base.protocol import Protocol

# A new data set is one more file here. The order is that of help texts and reports.
MODULES = (
    msrvtt_qa, msvd_qa, activitynet_qa, nextqa, vggsound, epic_sounds, kinetics_sounds, audioset, audiocaps, webvid,
    generic, world,
)  # fmt: skip

T = TypeVar("T", Adapter, Protocol)


def _declared(kind: type[T]) -> dict[str, T]:
    """The constants of this kind in MODULES, by name."""
    return {value.name: value for module in MODULES for value in vars(module).values() if isinstance(value, kind)}


ADAPTERS = _declared(Adapter)
PROTOCOLS = _declared(Protocol)


def protocol_of(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        MirasolError: no benchmark has this name.
    """
    if name not in PROTOCOLS:
        raise MirasolError(f"unknown benchmark {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
