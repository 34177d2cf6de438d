"""Seamark turns human feedback into a reward that can be steered by."""

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

from seamark.reward import Reward, export_signal
from seamark.simulation import simulate
from seamark.sources import load
from seamark.study import run_study

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
    "export_signal",
    "fit",
    "load",
    "run_study",
    "simulate",
]
