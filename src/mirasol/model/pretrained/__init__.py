"""Weights of other models as weights of this one: tensors to tensors; mirasol.training.openweights reads files."""
