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
        Context,
        Dynamic,
        Fit,
        Groups,
        Linear,
        MultiAxis,
        Network,
        Observation,
        Personas,
        Position,
        Reliability,
        Same,
        Scale,
        Tabular,
        Varying,
        bootstrap,
        fit,
    )
    from seamark.models.labels import fit_labels
    from seamark.records import Feedback, Judgment
    from seamark.reward import Reward
    from seamark.simulation import plan, simulate
    from seamark.sources import load
    from seamark.study import run_study

_HOME = {
    "Charter": "seamark.aggregation",
    "Context": "seamark.models",
    "Dynamic": "seamark.models",
    "Feedback": "seamark.records",
    "Finding": "seamark.checks",
    "Findings": "seamark.checks",
    "Fit": "seamark.models",
    "Groups": "seamark.models",
    "Judgment": "seamark.records",
    "Linear": "seamark.models",
    "MultiAxis": "seamark.models",
    "Network": "seamark.models",
    "Observation": "seamark.models",
    "Personas": "seamark.models",
    "Position": "seamark.models",
    "Reliability": "seamark.models",
    "Reward": "seamark.reward",
    "Same": "seamark.models",
    "Scale": "seamark.models",
    "SeamarkError": "seamark.errors",
    "Tabular": "seamark.models",
    "Varying": "seamark.models",
    "bootstrap": "seamark.models",
    "diagnose": "seamark.checks",
    "evaluate": "seamark.checks",
    "fit": "seamark.models",
    "fit_labels": "seamark.models.labels",
    "load": "seamark.sources",
    "plan": "seamark.simulation",
    "run_study": "seamark.study",
    "simulate": "seamark.simulation",
}

__all__ = [
    "Charter",
    "Context",
    "Dynamic",
    "Feedback",
    "Finding",
    "Findings",
    "Fit",
    "Groups",
    "Judgment",
    "Linear",
    "MultiAxis",
    "Network",
    "Observation",
    "Personas",
    "Position",
    "Reliability",
    "Reward",
    "Same",
    "Scale",
    "SeamarkError",
    "Tabular",
    "Varying",
    "bootstrap",
    "diagnose",
    "evaluate",
    "fit",
    "fit_labels",
    "load",
    "plan",
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
