"""Societies with known truth, in which every defect can be planted, and planning: how many judgments an interval takes."""

from seamark.simulation.answers import RATING_CUTS
from seamark.simulation.settings import (
    Axes,
    Confidence,
    Contexts,
    Drift,
    Labels,
    Missing,
    Personas,
    Tastes,
    read_settings,
    table_of_settings,
)
from seamark.simulation.societies import Society, Truth, demo_society, simulate

__all__ = [
    "RATING_CUTS",
    "Axes",
    "Confidence",
    "Contexts",
    "Drift",
    "Labels",
    "Missing",
    "Personas",
    "Society",
    "Tastes",
    "Truth",
    "demo_society",
    "read_settings",
    "simulate",
    "table_of_settings",
]
