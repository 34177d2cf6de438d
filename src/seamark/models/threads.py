"""How many threads a fit uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

_P = ParamSpec("_P")
_R = TypeVar("_R")


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def on_one_thread(work: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function with BLAS on one thread, unless OMP_NUM_THREADS says otherwise: matrices here are many and small, and threads that wait
    for each other on a busy machine make a fit up to twenty times slower."""

    @wraps(work)
    def alone(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if "OMP_NUM_THREADS" in os.environ:
            return work(*args, **kwargs)
        with _pools().limit(limits=1):
            return work(*args, **kwargs)

    return alone
