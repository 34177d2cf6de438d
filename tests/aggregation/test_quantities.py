"""Costs, rewards and preferences do not mix, when run and before."""

from __future__ import annotations

import json
import operator
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamark.aggregation.quantities import (
    Costs,
    Preferences,
    Rewards,
    costs_assuming_best_forgone,
    gaps_assuming_bradley_terry,
    preferences_assuming_bradley_terry,
    rewards_assuming_exchange,
)
from seamark.errors import InvalidSetting

COST, REWARD, PREFERENCE = (
    Costs(np.array([1.0, 2.0]), "minutes"),
    Rewards(np.array([0.5, -1.0]), "logits"),
    Preferences(np.array([0.7, 0.2])),
)
THINGS: dict[str, Any] = {
    "cost": COST, "reward": REWARD, "preference": PREFERENCE, "number": 1.0, "array": np.array([1.0, 2.0]), "scalar": np.float64(1.0),
}  # fmt: skip
SUMS = {("cost", "cost"), ("reward", "reward")}
PLAIN = {"number", "array", "scalar"}


@pytest.mark.parametrize("first", THINGS)
@pytest.mark.parametrize("second", THINGS)
def test_R111_only_like_adds_to_like(first: str, second: str) -> None:
    """A cost and a preference, either way round, by operator or by NumPy, are a TypeError; and so is every other mixture."""
    if {first, second} <= PLAIN:
        assert operator.add(THINGS[first], THINGS[second]) is not None
    elif (first, second) in SUMS:
        assert np.array_equal((THINGS[first] + THINGS[second]).values, 2 * THINGS[first].values)
    else:
        for combine in (operator.add, np.add, operator.sub, operator.mul):
            with pytest.raises(TypeError):
                combine(THINGS[first], THINGS[second])


@pytest.mark.parametrize("name", ["cost", "reward", "preference"])
def test_R111_numpy_does_not_see_through_them(name: str) -> None:
    for function in (np.sum, np.exp, np.mean):
        with pytest.raises(TypeError):
            function(THINGS[name])


def test_R111_the_type_checker_refuses_the_same(require: Callable[[str, str], Any]) -> None:
    """pyright on tests/typed/quantities.py: errors on the lines marked so, and on no others."""
    require("pyright", "Install the extra dev.")
    path = Path(__file__).parents[1] / "typed" / "quantities.py"
    expected = {i for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if re.search(r"# error$", line)}
    assert len(expected) == 9
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = json.loads(done.stdout[done.stdout.index("{") :])["generalDiagnostics"]
    assert {d["range"]["start"]["line"] + 1 for d in found if d["severity"] == "error"} == expected


def test_units_must_be_the_same() -> None:
    with pytest.raises(InvalidSetting, match=r"unit is 'euros'\. The other is in minutes"):
        COST + Costs(np.array([1.0, 1.0]), "euros")
    with pytest.raises(InvalidSetting, match="unit is 'points'"):
        REWARD - Rewards(np.array([1.0, 1.0]), "points")
    with pytest.raises(InvalidSetting, match="unit of rewards is ''"):
        Rewards(np.array([1.0]), "")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Costs(np.array([-1.0]), "minutes"), "costs is -1.0. A cost is at least 0"),
        (lambda: Preferences(np.array([0.5, 1.5])), "preferences is 1.5. A preference is a share"),
        (lambda: Rewards(np.array([np.nan]), "logits"), "finite numbers"),
        (lambda: Rewards(np.array([[1.0]]), "logits"), "finite numbers"),
        (lambda: rewards_assuming_exchange(COST, rate=-1.0, unit="logits"), "rate is -1.0"),
        (lambda: gaps_assuming_bradley_terry(Preferences(np.array([0.5, 1.0]))), "All chose alike"),
        (lambda: preferences_assuming_bradley_terry(Rewards(np.array([1.0]), "points"), Rewards(np.array([1.0]), "points")), "difference in logits"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(make: Callable[[], Any], named: str) -> None:
    with pytest.raises(InvalidSetting, match=named):
        make()


def test_R111_a_conversion_keeps_what_it_assumed() -> None:
    assert COST.assumptions == REWARD.assumptions == PREFERENCE.assumptions == ()
    lost = rewards_assuming_exchange(COST, rate=0.5, unit="logits")
    assert lost.values.tolist() == [-0.5, -1.0]
    assert lost.assumptions == ("one minutes of cost is made up for by 0.5 logits of reward, at every level and for everybody",)
    net = REWARD + lost
    assert net.assumptions == lost.assumptions
    chosen = preferences_assuming_bradley_terry(net, REWARD)
    assert chosen.assumptions[0] == lost.assumptions[0]
    assert "Bradley & Terry" in chosen.assumptions[1]
    assert chosen.reversed().assumptions == chosen.assumptions
    back = costs_assuming_best_forgone(net, rate=2.0, unit="minutes")
    assert back.values.tolist() == [0.0, 4.0]
    assert len(back.assumptions) == 2
    assert (lost + lost).assumptions == lost.assumptions


def test_bradley_terry_there_and_back() -> None:
    first, second = Rewards(np.array([-40.0, 0.0, 1.0, 30.0]), "logits"), Rewards(np.array([0.0, 0.0, -1.0, 0.0]), "logits")
    p = preferences_assuming_bradley_terry(first, second)
    assert p.values[1] == 0.5
    assert p.values[2] == pytest.approx(0.8807970779778823, abs=1e-15)  # 1 / (1 + e^-2)
    assert np.abs(p.values + preferences_assuming_bradley_terry(second, first).values - 1).max() < 1e-15
    assert gaps_assuming_bradley_terry(p).values[:3] == pytest.approx([-40.0, 0.0, 2.0])


def test_the_numbers_cannot_be_changed_behind_their_back() -> None:
    given = np.array([1.0])
    cost = Costs(given, "minutes")
    given[0] = -5.0
    assert cost.values.tolist() == [1.0]
    with pytest.raises(ValueError, match="read-only"):
        cost.values[0] = 2.0
