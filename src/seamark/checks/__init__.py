"""Findings about data and models: `diagnose` and `evaluate` are the same thing with other inputs."""

from seamark.checks.assumptions import check_assumptions
from seamark.checks.benchmarks import score_benchmark
from seamark.checks.change import Backtest, Change, Look, backtest, check_change, check_direction, check_exposure, find_change, watch
from seamark.checks.charter import check_charter
from seamark.checks.data import diagnose
from seamark.checks.disparity import (
    check_against_gold,
    check_blandness,
    check_homogenisation,
    check_matched_pairs,
    check_representation_gap,
    check_trade_offs,
)
from seamark.checks.dissent import check_dissent
from seamark.checks.findings import Finding, Findings
from seamark.checks.foresight import check_alarm
from seamark.checks.generalisation import check_generalisation
from seamark.checks.judges import check_judges
from seamark.checks.model import evaluate
from seamark.checks.optimisation import check_optimisation, cross_fitted
from seamark.checks.parity import check_parity
from seamark.checks.population import check_population
from seamark.checks.probes import check_probes

__all__ = [
    "Backtest",
    "Change",
    "Finding",
    "Findings",
    "Look",
    "backtest",
    "check_against_gold",
    "check_alarm",
    "check_assumptions",
    "check_blandness",
    "check_change",
    "check_charter",
    "check_direction",
    "check_dissent",
    "check_exposure",
    "check_generalisation",
    "check_homogenisation",
    "check_judges",
    "check_matched_pairs",
    "check_optimisation",
    "check_parity",
    "check_population",
    "check_probes",
    "check_representation_gap",
    "check_trade_offs",
    "cross_fitted",
    "diagnose",
    "evaluate",
    "find_change",
    "score_benchmark",
    "watch",
]
