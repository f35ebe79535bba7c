"""Chunk-causal attention: one function, three equal backends (P eq. 8)."""
