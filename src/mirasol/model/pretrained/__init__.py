"""Weights of other models as weights of this one: tensors to tensors; mirasol.training.convert_pretrained reads files."""
