"""The floor of the house, imported by every room: standard library only (rich inside the progress bar)."""
