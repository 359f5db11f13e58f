"""A process group of one process, for the tests of models in ``DistributedDataParallel``."""

import tempfile
from collections.abc import Iterator

import pytest
from torch import distributed


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1
        )
        yield
        distributed.destroy_process_group()
