"""A reward model that is known only by its scores, against judgments that it was not trained on: accuracy, calibration and shares, overall and by slice.

Conventions
-----------
Cells are those of `held_out`: one per decided comparison, of the most direct kind there is. The *gap* is the score of the first response less that of
the second. Scores that are no logits of preference are made so by one factor, learned on other prompts than those it is used for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from seamark.checks.baselines import check_baselines
from seamark.checks.calibration import check_brier, check_calibration, check_calibration_by, check_distribution
from seamark.checks.comparisons import Codes, counted
from seamark.checks.confounds import clustered_logistic
from seamark.checks.cross_fitting import CrossFit
from seamark.checks.fields import check_accuracy_by_field, check_calibration_by_field
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.held_out import Cells, check_accuracy, check_against_people, check_log_loss
from seamark.checks.repeats import check_leakage
from seamark.checks.scored import check_scored
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import FEW_CLUSTERS, Z95
from seamark.records import Feedback
from seamark.reward.scorers import Scorer, score_responses

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FOLDS = 5
_WORDS = {
    "the fit": "the reward model", "calibrated fit": "calibrated one", "labels of one part look reversed": "it prefers what people do not, or labels are reversed",
    "has no other common cause": "has no other cause than these", "training judgments": "the scores",
}  # fmt: skip
"""What is said of a fit, as it is said of any reward model."""
_SCALED = ("calibration", "brier", "log-loss", "distribution")


def evaluate_scores(
    scorer: Scorer, held_out: Feedback, *, train: Feedback | None = None, logits: bool = False, seed: int = 0, **settings: Any
) -> Findings:
    """How any reward model does on judgments that it has not seen.

    Parameters
    ----------
    train : what it was trained on, if that is known: for leakage, and for rules that learn as well.
    logits : whether a unit of the score is a logit of preference, as where it was trained with the Bradley-Terry loss: calibration is then that of
        the scores as they are; otherwise that of the scores times the factor that fits people best on other prompts.
    settings : of `score_texts`.

    Returns
    -------
    Findings
        scorer (`check_scored`), leakage, coverage/held-out, scale, accuracy in slices, people and trivial rules on the same judgments, log loss, Brier
        score, calibration and distribution, as `evaluate` has them of a fit; accuracy/FIELD for each field of the judgments that varies.
    """
    cross = CrossFit(feedback=held_out, seed=seed)
    asked = cross.asked
    rows = np.unique(np.concatenate([asked["first"].to_numpy(), asked["second"].to_numpy()]))
    value, scored = score_responses(scorer, held_out, rows.astype(np.int64), **settings)
    findings = check_scored(scored)
    gap = value[asked["first"].to_numpy()] - value[asked["second"].to_numpy()]
    known = np.isfinite(gap)
    leakage = check_leakage(train, held_out, seed=seed) if train is not None else [_unknown_training()]
    findings = [*findings, *Findings(tuple(leakage)).with_access("outside-the-box"), _coverage(known)]
    if not known.any() or scored.constant or scored.died:
        why = "The reward model gave no two scores that could be compared with a judgment, or it died midway."
        return Findings((*findings, *(Finding.not_applicable(code, "How well the reward predicts people cannot be told.", why) for code in ("accuracy", *_SCALED))))  # fmt: skip
    asked, gap = asked.filter(pl.Series(known)), gap[known]
    unit = np.unique(cross.comparisons.topic()[known], return_inverse=True)[1].astype(np.int64)
    won = asked["won"].to_numpy()
    scale, p = _scaled(gap, won, unit, logits, seed)
    cells = _cells(held_out, asked, gap, p)
    findings += [
        scale,
        *check_accuracy(cells),
        *check_accuracy_by_field(held_out, cells),
        *check_against_people(held_out, cells),
        *check_baselines(held_out, cells, train),
    ]
    if scale.verdict != "ok" and not logits:
        why = (scale.verdict == "not_applicable" and scale.reason) or "People's choices do not surely follow the score."
        findings += [Finding.not_applicable(code, "Scores without a scale are no probabilities.", why) for code in _SCALED]
    else:
        findings += [
            *check_log_loss(cells, "Decided comparisons alone."), check_brier(cells), *check_calibration(cells), *check_calibration_by(cells, value * (1.0 if logits else scale.details["per_unit"])),
            *check_calibration_by_field(held_out, cells), *check_distribution(cells, [], seed=seed),
        ]  # fmt: skip
    named = (f.reworded(_WORDS) for f in findings)
    return Findings(tuple(named)).with_access("black-box")


def _unknown_training() -> Finding:
    why = "What the reward model was trained on is not known here."
    return Finding.not_applicable("leakage", "Leakage cannot be looked for.", why, remedy="Give it with --train, if you have it.")


def _coverage(known: Mask) -> Finding:
    n, share = len(known), float(known.mean()) if len(known) else 0.0
    verdict: Verdict = "blocking" if not known.any() else "warning" if share < THRESHOLDS.placed_warning else "ok"
    words = "none" if not known.any() else "all" if known.all() else f"{share:.0%}"
    return Finding(
        code="coverage/held-out", title=f"The reward model scores both responses of {words} of {counted(n, 'decided held-out comparison')}.",
        estimate=share, n=n, unit="share", verdict=verdict, reason="An exact count over the data, so there is no interval.",
        remedy="See the findings of the scores: responses without text cannot be scored." if verdict != "ok" else None,
    )  # fmt: skip


def _scaled(gap: Array, won: Mask, unit: Codes, logits: bool, seed: int) -> tuple[Finding, Array]:
    """What a unit of the score is worth, and (n,) the probability that the first is preferred.

    P(first preferred) = sigmoid(b gap), b by maximum likelihood on the other four fifths of the prompts; at least 0, since which of two responses has
    the higher score is the reward model's to say. Scores that are logits are taken as they are.
    """
    spread, n_units = float(gap.std()), int(unit.max()) + 1
    if n_units < 2 * FEW_CLUSTERS or spread == 0:
        why = (
            "All gaps are the same."
            if spread == 0
            else f"There are judgments of {counted(n_units, 'prompt')}; {2 * FEW_CLUSTERS} are needed."
        )
        missing = Finding.not_applicable("scale", "What a unit of the score is worth cannot be told.", why)
        return missing, expit(gap) if logits else _undecided(gap)
    x, y = gap[:, None] / spread, won.astype(np.float64)
    worth, error = (float(found[0]) for found in clustered_logistic(x, y, unit))
    low, high = worth - Z95 * error, worth + Z95 * error
    p = expit(gap) if logits else _undecided(gap)
    if not logits:
        fold = np.random.default_rng(seed).permutation(n_units) % _FOLDS
        for k in range(_FOLDS):
            mine = fold[unit] == k
            others = np.unique(unit[~mine], return_inverse=True)[1].astype(np.int64)
            b = float(clustered_logistic(x[~mine], y[~mine], others)[0][0])
            if b > 0:
                p[mine] = expit(b * x[mine, 0])
    follows = low > 0
    how = "taken as logits as they are" if logits else "scaled by what was learned on other prompts, where probabilities are meant"
    return Finding(
        code="scale", estimate=worth, low=low, high=high, n=len(gap), unit="logits per sd", verdict="ok" if follows else "warning",
        title=f"A standard deviation of the score gap is worth {worth:.2f} [{low:.2f}, {high:.2f}] logits of people's preference"
        + (f", a unit {worth / spread:.3g}." if follows else ": people's choices do not surely follow the score."),
        reason=f"Logistic regression of answers on the gap; sandwich variance clustered by prompt. Scores are {how}.",
        remedy=None if follows else "See whether a higher score means worse; else this reward model has nothing to say about these judgments.",
        details={"per_unit": worth / spread, "sd": spread},
    ), p  # fmt: skip


def _undecided(gap: Array) -> Array:
    """(n,) a half, and as much more or less as tells the higher score."""
    return 0.5 + 1e-9 * np.sign(gap)


def _cells(held_out: Feedback, asked: pl.DataFrame, gap: Array, p: Array) -> Cells:
    won, ordered = asked["won"].to_numpy(), asked["ordered"].to_numpy()
    right = np.where(won, p, 1 - p)
    first = (won[ordered].sum() + 0.5) / (ordered.sum() + 1)  # of a coin where the order shown is not known
    frame = asked.with_columns(
        count=pl.lit(1.0), group=pl.lit(0, dtype=pl.Int64), p=pl.Series(p), hit=pl.Series(np.where(gap == 0, 0.5, (gap > 0) == won)),
        loss=pl.Series(-np.log(np.maximum(right, 1e-300))), reference=pl.Series(-np.log(np.where(ordered, np.where(won, first, 1 - first), 0.5))),
    )  # fmt: skip
    return Cells(frame, {"rater": tuple(held_out.raters["id"]), "prompt": tuple(held_out.prompts["id"]), "group": ()})
