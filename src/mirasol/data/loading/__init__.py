"""Reading shards: samples, augmentation, batches, resume."""
