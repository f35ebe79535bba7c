"""Weights of other models as weights of this one: tensors in, tensors out (training.convert_pretrained reads files)."""
