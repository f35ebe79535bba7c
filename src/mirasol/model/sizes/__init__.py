"""Model sizes: presets, the paper's counts, cost."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    presets="PRESETS build_config",
    accounting="parameter_counts forward_flops training_flops state_bytes",
    paper="paper_config",
)
