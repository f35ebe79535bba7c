"""Chunk-causal attention: one function, three equal backends (P eq. 8)."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, chunk_causal="chunk_causal_attention chunk_causal_mask", visible="Visible")
