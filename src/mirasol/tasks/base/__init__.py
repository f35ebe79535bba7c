"""One small file per benchmark: how its rows are scored, and who says so."""
