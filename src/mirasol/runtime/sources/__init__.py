"""Sources of a stream: files, folders, cameras, network addresses, synthetic frames."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, open="open_stream", files="Chunk Source open_source")
