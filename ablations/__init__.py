"""The paper's ablations at laptop scale: tables, the grid of cells, comparisons (docs/ablations.md)."""
