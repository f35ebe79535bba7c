"""Writing shards: clips encoded, kept, and stored in tars with an index.

`format` is shared with the reader; `encode` makes clips, `build` writes tars, `executors` spreads the work.
"""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__, build="build_shards", config="ShardsSpec", format="DamagedClip ShardWriter read_index"
)
