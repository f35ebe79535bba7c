"""Model sizes: presets, the paper's counts, cost."""
