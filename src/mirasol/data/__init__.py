"""Data sets between media files and batches.

`manifest` (rows of examples), `storage` (URLs), `linked_media`, `verify`, `contact_sheet`, `pipelines` (our shards in
another WebDataset pipeline); `world` makes the built-in videos, `shards` writes tars, `loading` reads them.
"""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    manifest="Example Clip read_manifest write_manifest clips_of",
    conditions="Condition",
    verify="check_shards",
    pipelines="webdataset",
)
