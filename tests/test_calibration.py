"""The calibration harness: its compositions, its truths, its criterion, and that a model made wrong on purpose fails it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from seamark.models import Fit, Groups, Observation, Reliability, coverage, fit
from seamark.models.coverage import Failed, unsupported
from seamark.models.effects import Scale
from seamark.models.observation import Choice, Davidson, Luce, Outcome, Rating, Strength
from tests import reference

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import calibration
import truths
from calibration import ALPHA, BAND, Coverage, judged, p_value
from truths import FACTORS, Cell, Composition, all_cells, covering_array, world

BARE = all_cells()[0]
WRONG = [c for c in all_cells() if c.wrong]


# ------------------------------------------------------------------------------------ compositions and truths


def test_at_most_60_compositions_in_which_any_two_parts_meet():
    array = covering_array()
    assert len(array) == len(set(array)) <= 60
    assert all(c.sensible for c in array)
    met = {(a, getattr(c, a), b, getattr(c, b)) for c in array for a, b in combinations(FACTORS, 2)}
    for a, b in combinations(FACTORS, 2):
        for x in FACTORS[a]:
            for y in FACTORS[b]:
                assert ((a, x, b, y) in met) == Composition(**{a: x, b: y} | _company(a, x, b, y)).sensible, (x, y)


def _company(a: str, x: str, b: str, y: str) -> dict[str, str]:
    """An outcome that goes with both parts, where neither is an outcome."""
    if "outcome" in (a, b):
        return {}
    return {"outcome": "Rating" if "leniency" in (x, y) and "missingness" not in (x, y) else "Choice"}


@pytest.mark.parametrize(
    ("family", "slots", "theta"),
    [
        (Choice(m=3), (0.4, -0.2, 1.0), ()),
        (Davidson(), (0.7, 0.2), (-0.6,)),
        (Strength(levels=2), (0.5, -0.4), (-0.5, -0.2)),
        (Rating((1.0, 2.0, 3.0)), (0.3,), (-1.0, 0.1, -0.2)),
        (Luce(3, most=2), (0.4, -0.2, 1.0), (-0.7,)),
    ],
)
def test_answers_are_drawn_as_the_reference_says(family: Outcome, slots: Sequence[float], theta: Sequence[float]):
    """20,000 draws with a lapse of 10%, against the naive reference; chi-square, false alarms 1e-3."""
    if isinstance(family, Choice):
        p = reference.choice(slots)
    elif isinstance(family, Davidson):
        p = reference.davidson(slots[0] - slots[1], theta[0])
    elif isinstance(family, Strength):
        p = reference.strength(slots[0] - slots[1], theta, ties=True)
    elif isinstance(family, Rating):
        p = reference.intervals(reference.rating_cuts(theta), slots[0])
    else:
        p = list(reference.davidson_luce(slots, theta).values())
    n = 20_000
    odds = np.full(n, np.log(0.1 / 0.9))
    code = truths.draw(family, np.tile(slots, (n, 1)), np.array(theta), odds, np.random.default_rng(0))
    expected = n * (0.9 * np.array(p) + 0.1 / len(p))
    assert stats.chisquare(np.bincount(code, minlength=len(p)), expected).pvalue > 1e-3


def test_truths_have_the_spread_that_is_stated():
    """Values of 120 worlds: sd 1 within 3.3 standard errors; positions .5."""
    c = Composition(shift="position")
    worlds = [world(c, [7, i]) for i in range(120)]
    values = np.concatenate([w.values["gap"] for w in worlds])
    position = np.array([w.parameters["position"] for w in worlds])
    assert values.std() == pytest.approx(1.0, abs=3.3 / np.sqrt(2 * len(values)))
    assert position.std() == pytest.approx(0.5, abs=3.3 * 0.5 / np.sqrt(2 * len(position)))


@pytest.mark.parametrize("cell", [c for c in all_cells() if not c.wrong], ids=lambda c: str(c.number))
def test_a_fit_has_the_parameters_that_a_truth_names(cell: Cell):
    """By the design alone, which costs no fit: every effect that was drawn is one that the likelihood has."""
    w = world(cell.truth, [calibration.HARNESS, cell.number, 3])
    kinds = set(w.feedback.judgments["kind"].unique().to_list())
    assert len(kinds) == 1
    assert w.feedback.n_raters == truths.N_RATERS
    assert set(w.values["gap"].shape) == {len(w.names)}
    if cell.truth.missing:
        assert (w.feedback.judgments["outcome"] == "skipped").sum() > 10


# ------------------------------------------------------------------------------------ the criterion


def test_p_values_are_those_of_the_interval():
    """p > a exactly where the Clopper-Pearson interval of level 1 - a meets the band; 1 within it."""
    low, high = BAND
    assert p_value(270, 300) == 1.0
    for covered in range(101):
        for alpha in (0.05, 0.01, 0.001):
            left = 0.0 if covered == 0 else stats.beta.ppf(alpha / 2, covered, 101 - covered)
            right = 1.0 if covered == 100 else stats.beta.ppf(1 - alpha / 2, covered + 1, 100 - covered)
            meets = bool(left <= high and right >= low)
            assert meets == (p_value(covered, 100) > alpha), (covered, alpha)


def _cell(covered: int, n: int = 500) -> Coverage:
    return Coverage(BARE, "gap", n, covered, 0.0, 1.0, p=p_value(covered, n))


def test_holm_rejects_step_by_step():
    """Of three, the worst at a / 3, the next at a / 2, ...; and nothing after the first that is not rejected."""
    found = judged([_cell(450), _cell(380), _cell(415)])
    assert [c.passes for c in found] == [True, False, p_value(415, 500) > ALPHA / 2]
    assert [c.passes for c in judged([_cell(450)] * 10)] == [True] * 10
    for c in found:
        assert c.low < c.share < c.high
        assert c.passes == (c.low <= BAND[1] and c.high >= BAND[0])


def _judge(cell: Cell, fits: int, tmp_path: Path) -> Coverage:
    done = calibration.run([cell], tmp_path / "r.jsonl", budget_s=300, processes=1, fits=fits)
    (found,) = calibration.families_of_tests([cell], done)["gap"]
    return found


def test_a_model_made_wrong_on_purpose_fails_and_the_right_one_passes(tmp_path: Path):
    """Each judgment counted ten times makes errors 3 times too small: 90% intervals cover about 40%. 40 fits of each."""
    right, wrong = _judge(BARE, 40, tmp_path), _judge(next(c for c in WRONG if c.copies > 1), 40, tmp_path)
    print(f"right {right.share:.0%}, wrong {wrong.share:.0%} [{wrong.low:.0%}, {wrong.high:.0%}]")
    assert right.passes
    assert not wrong.passes
    assert wrong.sd > 2


@pytest.mark.slow
@pytest.mark.parametrize("cell", WRONG, ids=lambda c: c.wrong)
def test_every_wrong_model_fails(cell: Cell, tmp_path: Path):
    assert not _judge(cell, 200, tmp_path).passes


def test_a_scale_in_thin_data_is_found_within_its_error():
    """`Davidson / Context / Groups / scale by number`: sum of z^2 of 20 fits, 1 in 1,000 above this bound where posteriors are right.

    At the joint mode of scale and values the sd of z was 1.81 (120 fits) in place of 1.04: values shrank, and the scale made up for it.
    """
    cell = all_cells()[13]
    assert cell.fitted.effects == ("scale by number",)
    z = [calibration.measure(cell, number)["z"]["scale: position"] for number in range(20)]
    assert np.square(z).sum() < stats.chi2.ppf(0.999, len(z))


# ------------------------------------------------------------------------------------ the run


def test_a_run_resumes_where_it_was_killed(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    calibration.run([BARE], path, budget_s=100, processes=1, fits=10)
    first = path.read_text(encoding="utf-8")
    assert len(first.splitlines()) == 1
    calibration.run([BARE], path, budget_s=100, processes=1, fits=10)
    assert path.read_text(encoding="utf-8") == first  # nothing left to do
    path.write_text(first + first[:100], encoding="utf-8")  # killed while writing
    done = calibration.run([BARE], path, budget_s=100, processes=1, fits=20)
    assert sorted(b["first"] for b in done[0]) == [0, 10]
    assert len({f["number"] for b in calibration.read_results(path, [BARE])[0] for f in b["fits"]}) == 20


def test_what_later_code_measures_again_is_compared_and_counts_once(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    calibration.run([BARE], path, budget_s=100, processes=1, fits=20)
    assert calibration.measured_again(path) == (0, 0)
    path.write_text(path.read_text(encoding="utf-8").replace(calibration.code_fingerprint(), "earlier"), encoding="utf-8")
    calibration.run([BARE], path, budget_s=100, processes=1, again=1)
    assert calibration.measured_again(path) == (10, 10)
    done = calibration.read_results(path, [BARE])
    assert sum(len(b["fits"]) for b in done[0]) == 20
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    line["fits"][0]["z"]["gap"] += 1.0
    path.write_text("\n".join([*path.read_text(encoding="utf-8").splitlines()[:-1], json.dumps(line)]), encoding="utf-8")
    assert calibration.measured_again(path) == (10, 9)
    assert "in 9 no z moved" in calibration.tables([BARE], done, (10, 9))


def test_no_budget_no_fits(tmp_path: Path):
    assert calibration.run([BARE], tmp_path / "r.jsonl", budget_s=0, processes=1) == {0: []}


def test_truths_are_the_same_in_every_run():
    first, again = (calibration.measure(BARE, 5)["z"]["gap"] for _ in range(2))
    assert first == again


def test_the_next_batch_is_of_the_cell_that_will_have_had_the_least_time():
    cells = [replace(BARE, number=i) for i in range(3)]
    fits = [{"seconds": 0.01}]
    done = {i: [{"first": 0, "wall_s": wall, "fits": fits}] for i, wall in enumerate((3.0, 1.0, 2.0))}
    cell, first = next(calibration.tasks(cells, done))
    assert (cell.number, first) == (1, calibration.BATCH)


# ------------------------------------------------------------------------------------ what the library says


@pytest.fixture(scope="module")
def grouped() -> Fit:
    c = Composition("Davidson", people="Groups", slope="reliability", scale="scale by number")
    w = world(c, [1, 2, 3])
    return fit(w.feedback, utility=w.utility, people=truths.people_of(c), observation=truths.observation_of(c))


def test_a_fit_of_a_failed_composition_says_so(grouped: Fit, monkeypatch: pytest.MonkeyPatch):
    failed = Failed("Davidson", "Tabular", "Groups", ("reliability", "scale by number"), "gap", 500, 0.8, 0.74, 0.85)
    monkeypatch.setattr(coverage, "FAILED", (failed,))
    said = unsupported(grouped.spec, grouped.families)
    assert said is not None
    assert "too narrow" in said
    assert "80% [74%, 85%] of 500" in said
    for other in (replace(failed, effects=("reliability",)), replace(failed, outcome="Choice"), replace(failed, people="Same")):
        monkeypatch.setattr(coverage, "FAILED", (other,))
        assert unsupported(grouped.spec, grouped.families) is None


@pytest.mark.parametrize("cell", [c for c in all_cells() if not c.wrong], ids=lambda c: str(c.number))
def test_fits_are_recognised_as_what_was_measured(cell: Cell):
    """A composition's own words come back from what a fit of it says of itself: its specification and its families."""
    c = cell.fitted
    w = world(c, [calibration.HARNESS, cell.number, 3])
    spec = {"utility": {"utility": c.utility}, "people": truths.people_of(c).to_dict(), "observation": truths.observation_of(c).to_dict()}
    families = _families(c, w)
    assert coverage._composition(spec, families) == (c.outcome, c.utility, c.people, frozenset(c.effects))


def _families(c: Composition, w: truths.World) -> dict[str, Outcome]:
    from seamark.models.design import build_design
    from seamark.models.people import Strata

    feedback = w.feedback
    if c.missing:  # the fit wants 30 unanswered pairs
        assert feedback.judgments.filter(pl.col("outcome") == "skipped").height > 10
    design = build_design(feedback, truths.observation_of(c), Strata.of([], feedback))
    return {b.name: b.family for b in design.blocks}


def test_default_effects_without_data_to_act_on_do_not_count():
    spec = {
        "utility": {"utility": "Tabular"}, "people": Groups().to_dict(), "observation": Observation(effects=(Reliability(), Scale("team"))).to_dict(),
    }  # fmt: skip
    default = Observation().to_dict()
    assert coverage._composition(spec | {"observation": default}, {"pair": Choice()}) == (
        "Choice", "Tabular", "Groups", frozenset({"reliability", "position", "lapse"}),
    )  # fmt: skip
    assert coverage._composition(spec, {"pair": Choice(), "thumbs": Rating((1.0,))}) is None  # kinds mixed were not measured
    assert coverage._composition(spec, {"pair": Choice()})[3] == {"reliability", "scale by names", "lapse"}  # type: ignore[index]  # it is one kind
