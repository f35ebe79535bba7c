"""Settings of the `shards` section: how clips are stored for training."""

from __future__ import annotations

from dataclasses import dataclass

from mirasol.core.fields import param


@dataclass(frozen=True)
class ShardsSpec:
    """The `shards` section."""

    clips_per_shard: int = param(500, "clips in a tar", ge=1)
    crf: int = param(
        25, "H.264 quality when a clip is encoded again: lower is better, 6 less is about twice the bytes", ge=0, le=51
    )
    workers: int = param(2, "processes", ge=1, le=1024)
    max_rejected: float = param(0.05, "share of clips that may be unusable before the stage fails", ge=0, le=1)
    executor: str = param(
        "processes",
        "who makes the clips: `processes` of this machine, or the workers of a Dask cluster (`dask`), which see the "
        "data folder under the same path or read media by URL",
        choices=("processes", "dask"),
    )
    address: str = param("", "of the Dask scheduler, like tcp://host:8786; empty under `processes`")
    storage: str = param(
        "",
        "where the tars lie: empty for build/shards itself, or the URL of a folder like s3://bucket/shards; "
        "build/shards then holds the list alone",
    )
