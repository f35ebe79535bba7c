from support.loading import loader, tokenizer  # noqa: F401  (fixtures)
from support.s3 import bucket, server  # noqa: F401  (fixtures)
from support.shards import tiny_shards  # noqa: F401  (a fixture)
