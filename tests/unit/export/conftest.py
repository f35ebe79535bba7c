from support.shards import tiny_shards  # noqa: F401  (a fixture)
