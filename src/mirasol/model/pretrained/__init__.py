"""Weights of other models as weights of this one: tensors in, tensors out (training.convert_pretrained reads files)."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, vision="read_vision", text="read_text", mirasol="read_mirasol")
