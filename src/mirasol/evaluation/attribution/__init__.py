"""Attribution of an answer to chunks, frames and sound, and its picture."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, attribute="Attribution", explain_file="explain")
