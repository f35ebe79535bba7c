"""The published sets that `mirasol data import` knows, by name."""

from __future__ import annotations

from mirasol.tasks import (
    activitynet_qa,
    audiocaps,
    audioset,
    epic_sounds,
    kinetics_sounds,
    msrvtt_qa,
    msvd_qa,
    nextqa,
    vggsound,
    webvid,
)
from mirasol.tasks.base.importer import Adapter

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        msrvtt_qa.ADAPTER,
        msvd_qa.ADAPTER,
        activitynet_qa.ADAPTER,
        nextqa.CHOICE,
        nextqa.OPEN,
        vggsound.ADAPTER,
        epic_sounds.ADAPTER,
        kinetics_sounds.ADAPTER,
        audioset.ADAPTER,
        audiocaps.ADAPTER,
        webvid.ADAPTER,
    )
}
