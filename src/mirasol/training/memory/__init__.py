"""The memory that a training step takes, counted before it runs."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    budget="Job Prediction Setting cheapest predict search",
)
