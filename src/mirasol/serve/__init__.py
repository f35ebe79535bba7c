"""A small HTTP and WebSocket service over one loaded engine."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, app="make_app", run="serve", limits="Limits")
