"""A Ray cluster: joblib's backend of Ray. No test runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util.joblib.ray_backend import RayBackend


class UnorderedRayBackend(RayBackend):  # type: ignore[misc]
    """joblib's backend of Ray, which gives every result as soon as it is there."""

    supports_return_generator = True


@contextmanager
def connected(scheduler: str) -> Iterator[UnorderedRayBackend]:
    """Connect to a cluster for a sweep.

    Args:
        scheduler: its address, such as `ray://127.0.0.1:10001`; `auto` finds that of this machine.

    Raises:
        ValueError: none answers.
    """
    try:
        ray.init(address=scheduler)
    except (OSError, ValueError) as error:
        raise ValueError(f"--scheduler {scheduler}: no Ray cluster answers ({error})") from None
    try:
        yield UnorderedRayBackend()
    finally:
        ray.shutdown()
