"""The benchmarks that `mirasol evaluate` and `mirasol score` know, by name."""

from __future__ import annotations

from mirasol.core.errors import MirasolError
from mirasol.tasks import world
from mirasol.tasks.base.protocol import Protocol
from mirasol.tasks.protocols import (
    activitynet_qa,
    epic_sounds,
    generic,
    kinetics_sounds,
    msrvtt_qa,
    msvd_qa,
    nextqa_mc,
    nextqa_oe,
    vggsound,
)

PROTOCOLS: dict[str, Protocol] = {
    module.PROTOCOL.name: module.PROTOCOL
    for module in (
        msrvtt_qa,
        msvd_qa,
        activitynet_qa,
        nextqa_mc,
        nextqa_oe,
        vggsound,
        epic_sounds,
        kinetics_sounds,
        generic,
        world,
    )
}


def protocol_of(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        MirasolError: there is none.
    """
    if name not in PROTOCOLS:
        raise MirasolError(f"unknown benchmark {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
