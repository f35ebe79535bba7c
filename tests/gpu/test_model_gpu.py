"""The model gives equal results on a GPU and on the CPU."""

import pytest
import torch
from support.model import random_batch, relative_error, tiny_model

from mirasol.model.config import COMBINERS


@pytest.mark.gpu
@pytest.mark.parametrize("combiner", COMBINERS)
def test_gpu_equals_cpu(combiner: str) -> None:
    model = tiny_model(combiner=combiner)
    batch = random_batch(model.config)
    with torch.no_grad():
        here = model.encode(batch)
        there = model.cuda().encode(batch.to(torch.device("cuda")))
    assert relative_error(there.h.cpu(), here.h) < 1e-4
