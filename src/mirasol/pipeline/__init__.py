"""One file per stage of dvc.yaml: parameters in, one call of a room, metrics out. `mirasol stage NAME` runs them."""
