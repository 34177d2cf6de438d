"""Fixtures that find what a machine may lack: they skip with the reason, and fail under SEAMARK_REQUIRE=all."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# as the command line does, before numpy and torch load: threads that spin against each other make small fits many times slower
for _name, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE")):
    os.environ.setdefault(_name, _value)
# pref_voting, a peer: to compile it takes longer than all that it is asked here
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")


def _lacking(what: str, remedy: str) -> None:
    if os.environ.get("SEAMARK_REQUIRE") == "all":
        pytest.fail(f"{what} is required here (SEAMARK_REQUIRE=all). {remedy}")
    pytest.skip(f"{what} is not available. {remedy}")


@pytest.fixture(scope="session")
def require() -> Callable[[str, str], Any]:
    """`require("jsonschema", "Install the extra dev.")`: the module, where it is installed."""

    def _require(module: str, remedy: str) -> Any:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            _lacking(module, remedy)
        return importlib.import_module(module)

    return _require


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data sets of docs/data.md."""
    folder = os.environ.get("SEAMARK_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        _lacking("real data", "Set SEAMARK_TEST_DATA to a folder with the sets of docs/data.md.")
    return Path(folder or "")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium."""
    found = os.environ.get("SEAMARK_CHROMIUM") or shutil.which("chromium")
    if not found:
        _lacking("a Chromium", "Install the chromium package or set SEAMARK_CHROMIUM.")
    return found or ""
