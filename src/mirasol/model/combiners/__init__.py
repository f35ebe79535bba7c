"""Combiners (P 3.2): one protocol, one name table."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    build="Combiner build_combiner",
    transformer="TransformerCombiner",
    ttm="TTMCombiner",
    cls="CLSCombiner",
    perceiver="PerceiverCombiner",
    concat="ConcatCombiner",
)
