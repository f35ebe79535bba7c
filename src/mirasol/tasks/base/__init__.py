"""Shared by all data sets: reading annotation files, importing, protocols."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    importer="Adapter ImportOptions Row import_set read_set",
    protocol="Protocol Asked Material",
    annotations="Annotations Record RowError",
)
