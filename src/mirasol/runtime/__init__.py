"""A bundle at work with numpy, PyAV and onnxruntime, without torch: answers about files and streams."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    model="Model load",
    engine="Engine",
    answer="Answer Flag",
    session="Session",
    contract="Contract read_contract",
)
