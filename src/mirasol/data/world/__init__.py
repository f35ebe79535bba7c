"""The built-in world: synthetic videos with sound, questions and exact answers (docs/world.md)."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, make="make_world")
