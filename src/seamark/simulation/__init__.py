"""Societies with known truth, in which every defect can be planted, and planning: how many judgments an interval takes."""

from seamark.simulation.answers import RATING_CUTS
from seamark.simulation.pilot import estimate_assumptions
from seamark.simulation.planning import Assumptions, Plan, plan, read_assumptions
from seamark.simulation.settings import (
    Axes,
    Confidence,
    Contexts,
    Drift,
    Labels,
    Missing,
    Personas,
    Style,
    Tastes,
)
from seamark.simulation.societies import Society, Truth, demo_society, read_settings, simulate, table_of_settings

__all__ = [
    "RATING_CUTS",
    "Assumptions",
    "Axes",
    "Confidence",
    "Contexts",
    "Drift",
    "Labels",
    "Missing",
    "Personas",
    "Plan",
    "Society",
    "Style",
    "Tastes",
    "Truth",
    "demo_society",
    "estimate_assumptions",
    "plan",
    "read_assumptions",
    "read_settings",
    "simulate",
    "table_of_settings",
]
