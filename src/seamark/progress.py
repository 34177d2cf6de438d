"""How far long work is: whoever waits listens, and whoever works tells, however deep below."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str, float], None]
"""Takes the name of what is being done, and the share of it that is done."""

_listener: ContextVar[Progress | None] = ContextVar("listener", default=None)


def tell(stage: str, share: float) -> None:
    """Say that a share in [0, 1] of a stage is done, to whom it concerns."""
    if (listener := _listener.get()) is not None:
        listener(stage, share)


@contextmanager
def listening(progress: Progress) -> Generator[None]:
    """What is told inside goes to `progress`."""
    token = _listener.set(progress)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def part_of_progress(start: float, stop: float) -> Generator[None]:
    """What is told inside counts from `start` to `stop` of the stage."""
    outer = _listener.get()
    with listening(lambda stage, share: outer(stage, start + share * (stop - start)) if outer is not None else None):
        yield
