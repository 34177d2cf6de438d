"""First-order influence against modes found without the judgments, with and without raters' slopes."""

from __future__ import annotations

import numpy as np
import pytest

import seamark as sm
from seamark.models.influence import Influence, influence
from seamark.records import Feedback

PLAIN = sm.Observation(effects=(), lapse=False)


def society(seed: int = 1, *, tie: float | None = None) -> Feedback:
    return sm.simulate(n_prompts=40, n_responses=4, n_judgments=500, n_raters=20, groups=1, tie=tie, careless=0.2, seed=seed).feedback


def of_first_pairs(feedback: Feedback, n: int, **model: object) -> Influence:
    pairs = feedback.pairs().head(n)
    return influence(feedback, pairs["left"].to_numpy().astype(int), pairs["right"].to_numpy().astype(int), **model)  # type: ignore[arg-type]  # parts of a model


@pytest.mark.parametrize("observation", [PLAIN, sm.Observation()], ids=["plain", "raters"])
@pytest.mark.parametrize("utility", [sm.Linear(n_columns=32, residual=False), sm.Tabular()], ids=["features", "table"])
def test_the_first_order_is_the_derivative_of_the_mode(observation: sm.Observation, utility: sm.Linear | sm.Tabular) -> None:
    """Judgments that count a thousandth less move gaps by a thousandth of the influence, to four digits."""
    feedback = society()
    found = of_first_pairs(feedback, 2, utility=utility, observation=observation, require_identified=False)
    assert not found.unsettled
    most = np.argsort(-np.abs(found.change[:, 0]))[:6]
    cells = np.concatenate([most, np.random.default_rng(0).choice(len(found.cells), 6, replace=False)])
    share = 1e-3
    counts = [c.block.count for c in found.problem.likelihood.cells]
    gaps = []
    for cell in cells:
        less = [np.where(o == cell, n - share, n) for n, o in zip(counts, found._origin, strict=True)]
        gaps.append(found._move([n[None] for n in less])[0][0] @ found._gaps)
    actual = (np.array(gaps) - found.gap) / share
    print(np.abs(actual - found.change[cells]).max() / np.abs(actual).max())
    assert actual == pytest.approx(found.change[cells], rel=2e-3, abs=1e-3 * np.abs(actual).max())


def test_latent_levels_and_ties_are_one_judgment_each() -> None:
    feedback = society(3, tie=-1.0)
    found = of_first_pairs(feedback, 2, utility=sm.Linear(n_columns=16, residual=False), people=sm.Personas(2), observation=PLAIN)
    assert found.cells["count"].sum() == feedback.n_judgments
    cells = np.arange(0, len(found.cells), 25)
    actual = found.leave_out([np.array([c]) for c in cells], whole=False) - found.gap
    assert np.corrcoef(found.change[cells].ravel(), actual.ravel())[0, 1] > 0.97


def test_cells_name_the_judgments_that_they_are() -> None:
    feedback = society()
    found = of_first_pairs(feedback, 1, utility=sm.Linear(n_columns=16, residual=False), observation=PLAIN)
    rows = [found.rows(cell) for cell in range(len(found.cells))]
    assert sorted(np.concatenate(rows).tolist()) == list(range(feedback.n_judgments)), "each judgment is in one cell"
    assert [len(r) for r in rows] == found.cells["count"].to_list()
    row = feedback.judgments.row(int(rows[5][0]), named=True)
    assert found.cells["winner"][5] == row["responses"][0 if str(row["outcome"]) == "left" else 1]
