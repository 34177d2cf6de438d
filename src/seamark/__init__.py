"""Seamark turns human feedback into a reward that can be steered by.

Names are imported on first use: `import seamark` and `seamark --help` stay fast, and never import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamark.aggregation import Charter
    from seamark.checks import Finding, Findings, diagnose, evaluate
    from seamark.errors import SeamarkError
    from seamark.models import (
        Choice,
        Davidson,
        Fit,
        Groups,
        Leniency,
        Linear,
        Observation,
        Position,
        Rating,
        Reliability,
        Same,
        Strength,
        Tabular,
        Thumbs,
        fit,
    )
    from seamark.records import Feedback, Judgment, Rater, Response
    from seamark.reward import Reward
    from seamark.simulation import simulate
    from seamark.sources import load
    from seamark.study import run_study

_HOME = {
    "Charter": "seamark.aggregation",
    "Finding": "seamark.checks",
    "Findings": "seamark.checks",
    "diagnose": "seamark.checks",
    "evaluate": "seamark.checks",
    "SeamarkError": "seamark.errors",
    "Choice": "seamark.models",
    "Davidson": "seamark.models",
    "Fit": "seamark.models",
    "Groups": "seamark.models",
    "Leniency": "seamark.models",
    "Linear": "seamark.models",
    "Observation": "seamark.models",
    "Position": "seamark.models",
    "Rating": "seamark.models",
    "Reliability": "seamark.models",
    "Same": "seamark.models",
    "Strength": "seamark.models",
    "Tabular": "seamark.models",
    "Thumbs": "seamark.models",
    "fit": "seamark.models",
    "Feedback": "seamark.records",
    "Judgment": "seamark.records",
    "Rater": "seamark.records",
    "Response": "seamark.records",
    "Reward": "seamark.reward",
    "simulate": "seamark.simulation",
    "load": "seamark.sources",
    "run_study": "seamark.study",
}

__all__ = [
    "Charter",
    "Choice",
    "Davidson",
    "Feedback",
    "Finding",
    "Findings",
    "Fit",
    "Groups",
    "Judgment",
    "Leniency",
    "Linear",
    "Observation",
    "Position",
    "Rater",
    "Rating",
    "Reliability",
    "Response",
    "Reward",
    "Same",
    "SeamarkError",
    "Strength",
    "Tabular",
    "Thumbs",
    "diagnose",
    "evaluate",
    "fit",
    "load",
    "run_study",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("seamark")
    if name not in _HOME:
        raise AttributeError(f"module 'seamark' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
