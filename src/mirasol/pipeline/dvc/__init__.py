"""DVC from Python: its graph, `repro` under a supervisor, one lock a workspace."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, dvc="Stage StageError read_stages repro status", lock="Lock hold")
