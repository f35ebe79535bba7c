from support.loading import loader, tokenizer  # noqa: F401  (fixtures)
from support.shards import tiny_shards  # noqa: F401  (a fixture)
