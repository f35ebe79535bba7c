"""Writing shards: clips encoded, stored in tars with an index."""
