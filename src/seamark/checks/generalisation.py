"""Does what was learned hold elsewhere? Fits to some prompts, raters, groups, models, contexts, axes or times, tested on the others.

Conventions
-----------
A *split* deals the judgments into parts. Each part is predicted by a fit to the other parts (by time: to what came before), so that every judgment
is predicted once by a fit that never saw its prompt, rater, group, ... The *random* split deals single judgments: what it shows is how well the
model fits, and the difference to another split, on the same judgments, is what does not carry over. Where a split leaves less to train on, the
random split beside it is trained on as few. Intervals are clustered by what is held out, by rater and by prompt, and the widest counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.comparisons import Codes, codes_of, counted
from seamark.checks.cross_fitting import RULES, CrossFit, Job, Progress
from seamark.checks.decay import check_decay, plan_decay, time_blocks
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.held_out import figure, gain, gain_details
from seamark.checks.learning import check_curve, check_neighbours, plan_curve, plan_neighbours
from seamark.checks.thresholds import THRESHOLDS
from seamark.columns import COVARIATE
from seamark.errors import InvalidSetting, SeamarkError
from seamark.intervals import Interval, clustered_mean, clustered_share
from seamark.models.observation import Observation
from seamark.models.people import People, labels
from seamark.models.utility import Utility
from seamark.records import Feedback
from seamark.reward.signal import OUT_OF_SUPPORT

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_USUAL = ("prompt", "prompt_cluster", "rater", "group", "source", "axis", "pair_type", "time")
"""Looked for where nothing is asked for; those that the data does not have are said to be so."""
_CONTEXTS = ("provenance", "team", "guideline_version", "ui_version", "assistance")
"""Looked for where nothing is asked for, and passed over in silence where they do not vary."""
_WORDS = {
    "prompt": "prompts", "prompt_cluster": "clusters of prompts", "rater": "raters", "group": "groups of raters", "source": "source models",
    "axis": "axes", "pair_type": "contexts", "time": "times", "provenance": "sources of the data",
}  # fmt: skip
_FAMILIES = 12
"""Up to so many values each is left out in turn; more are dealt into the folds."""
_MATRIX = 8
"""Up to so many values are trained on and tested on one by one."""
_LEAST = 50
"""Judgments that a part must leave to train on, and comparisons that all parts together must test."""
_LEAST_MATRIX = 100
"""Judgments of a value, below which it has no row and column of the matrix."""
_SAMPLE = 5
"""Fewer values held out are no sample of values: the interval is then for these."""
_NEAR = 0.9
"""A split that trains on less than this share of what the random split trains on has a random split of its own size beside it."""
EXTRAS = ("neighbours", "curve", "decay")


@dataclass(frozen=True)
class Split:
    """Who is held out from whom."""

    name: str
    code: Codes
    """(n_judgments,) what is held out together; -1 where it is not known."""
    names: tuple[str, ...]
    parts: tuple[tuple[str, Mask, Mask], ...]
    """(what is held out, train, test) of each fit."""

    @property
    def words(self) -> str:
        return _WORDS.get(self.name, f"values of {self.name}")

    @property
    def known(self) -> Mask:
        return self.code >= 0

    def jobs(self) -> list[Job]:
        return [Job(self.name, part, train, test) for part, train, test in self.parts]


def check_generalisation(
    feedback: Feedback,
    *,
    by: Sequence[str] | None = None,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    n_folds: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> Findings:
    """How well the model predicts what it was not trained on, for each way in which new judgments can be new.

    Parameters
    ----------
    by : splits: prompt, prompt_cluster, rater, group, source, axis, time, a text field of the judgments (pair_type, provenance, ...), profile.NAME of
        the raters, covariate.NAME (in thirds); neighbours (new prompts beside their nearest trained ones), curve (how much more judgments
        would bring) and decay (how a fit ages). None: all that the data allows.
    n_folds : parts of a split with more than 12 values; fewer are left out one at a time.
    resume : folder in which finished fits are kept; the same call with the same folder goes on where it stopped, to the same result.

    Returns
    -------
    generalisation/random and generalisation/NAME : accuracy and log loss on what was held out, the difference to the random split, people and
        trivial rules on the same judgments, and each part's own accuracy.
    generalisation/matrix/NAME : trained on one value and tested on another, where there are 2 to 8.
    generalisation/support : whether responses that the training data says little of are predicted worse.
    neighbours, learning-curve : see `seamark.checks.learning`.
    decay : see `seamark.checks.decay`.
    generalisation : the split with the largest loss.

    Raises
    ------
    InvalidSetting
        If a split is not known, or n_folds is below 2.

    Source: leave-one-group-out cross-validation, with differences paired on the same judgments.
    """
    if n_folds < 2:
        raise InvalidSetting("n_folds", n_folds, "Use 2 or more.")
    cross = CrossFit(
        feedback=feedback,
        utility=utility,
        people=people,
        observation=observation,
        seed=seed,
        resume=None if resume is None else Path(resume),
    )
    if len(cross.comparisons) < _LEAST:
        why = f"{counted(len(cross.comparisons), 'decided comparison')}; {_LEAST} are needed."
        return Findings((Finding.not_applicable("generalisation", "Whether the signal generalises cannot be told.", why),))
    rng = np.random.default_rng(seed)
    everything = _dealt("random", np.arange(feedback.n_judgments), (), n_folds, rng)
    splits: list[Split] = [everything]
    findings: list[Finding] = []
    for name in fields_of(feedback) if by is None else [name for name in by if name not in ("random", *EXTRAS)]:
        found = _split(feedback, name, n_folds, rng, asked=by is not None)
        if isinstance(found, Finding):
            findings.append(found)
        else:
            splits.append(found)
    wanted = EXTRAS if by is None else [name for name in EXTRAS if name in by]
    jobs: dict[str, list[Job]] = {}
    for split in splits:
        jobs[split.name] = split.jobs()
        if split is not everything and (reference := _reference(split, n_folds, rng)):
            jobs[f"{split.name}/random"] = reference
        if 2 <= len(split.names) <= _MATRIX and split.name not in ("random", "source", "time", "prompt", "rater"):
            jobs[f"{split.name}/matrix"] = _matrix_jobs(split, n_folds, rng)
    planned = {"neighbours": plan_neighbours, "curve": plan_curve, "decay": plan_decay}
    for name in wanted:
        jobs[name] = planned[name](feedback, n_folds=n_folds, seed=seed)
    results = iter(cross.run([job for each in jobs.values() for job in each], progress))
    done = {name: [next(results) for _ in each] for name, each in jobs.items()}
    frames: dict[str, pl.DataFrame] = {}
    for split in splits:
        frame = _joined(cross, split, done[split.name])
        if isinstance(frame, str):
            findings.append(Finding.not_applicable(f"generalisation/{split.name}", f"How the signal carries over to new {split.words} cannot be told.", frame))  # fmt: skip
            continue
        frames[split.name] = frame
        own = done.get(f"{split.name}/random")
        beside = None if split is everything else _together(own) if own else frames.get("random")
        findings.append(_finding(split, frame, beside, jobs[split.name], own_size=own is not None))
        if matrix := done.get(f"{split.name}/matrix"):
            findings.append(_matrix(cross, split, matrix, jobs[f"{split.name}/matrix"]))
    findings += [_support(frames)] if frames else []
    if "neighbours" in wanted:
        findings.append(check_neighbours(cross, jobs["neighbours"], done["neighbours"]))
    if "curve" in wanted:
        findings.append(check_curve(cross, jobs["curve"], done["curve"], seed=seed))
    if "decay" in wanted:
        findings.append(check_decay(cross, jobs["decay"], done["decay"]))
    return Findings((*_headline(findings), *findings)).with_access("white-box")


# ---------------------------------------------------------------------------------------------- who is held out


def fields_of(feedback: Feedback) -> list[str]:
    """The usual splits, and the fields of the judgments that vary."""
    varied = [name for name in _CONTEXTS if 2 <= feedback.judgments[name].drop_nulls().n_unique() <= 200]
    return [*_USUAL, *varied]


def _split(feedback: Feedback, name: str, n_folds: int, rng: np.random.Generator, *, asked: bool) -> Split | Finding:
    """The split of this name, or why the data does not allow it."""
    words = _WORDS.get(name, f"values of {name}")
    title, code = f"How the signal carries over to new {words} cannot be told.", f"generalisation/{name}"
    if name == "time":
        return _by_time(feedback, n_folds) or Finding.not_applicable(code, title, "The judgments do not have different times.")
    if name == "source":
        found = _by_source(feedback, n_folds, rng)
        return found or Finding.not_applicable(code, title, "Fewer than three source models are known, so that none can be left out.")
    try:
        codes, names = values_of(feedback, name)
    except InvalidSetting:
        if asked:
            raise
        return Finding.not_applicable(code, title, f"No judgment has {name}.")
    if len(names) < 2:
        why = f"The judgments have {'no' if not names else 'only one'} {name.replace('_', ' ')}."
        return Finding.not_applicable(code, title, why)
    split = _dealt(name, codes, names, n_folds, rng)
    if len(split.parts) < 2:
        return Finding.not_applicable(code, title, f"Without one of the {words} fewer than {_LEAST} judgments are left to train on.")
    return split


def values_of(feedback: Feedback, name: str) -> tuple[Codes, tuple[str, ...]]:
    """(n_judgments,) code of each judgment's value, -1 where it is not known, and the values."""
    frame = feedback.judgments
    if name in ("prompt", "rater"):
        table = feedback.prompts if name == "prompt" else feedback.raters
        return codes_of(frame[name]), tuple(table["id"].to_list())
    if name == "prompt_cluster":
        if feedback.prompts["text"].null_count() == feedback.n_prompts or feedback.n_prompts < 20:
            return np.full(len(frame), -1), ()
        codes = np.where(frame["prompt"].is_null().to_numpy(), -1, feedback.units("prompt_cluster"))
        distinct, code = np.unique(codes, return_inverse=True)
        names = tuple(f"cluster {k + 1}" for k in range(int((distinct >= 0).sum())))
        return code.astype(np.int64) - int((distinct < 0).any()), names
    if name.startswith(COVARIATE) and name in frame.columns:
        mean = frame[name].list.mean()
        if mean.n_unique() < 3:
            return np.full(len(frame), -1), ()
        edges = np.quantile(mean.drop_nulls().to_numpy(), [1 / 3, 2 / 3])
        third = np.searchsorted(edges, mean.fill_null(0.0).to_numpy())
        return np.where(mean.is_null().to_numpy(), -1, third), ("lowest third", "middle third", "highest third")
    said = labels(feedback, name)
    names = sorted(said.drop_nulls().unique().to_list())
    lookup = {value: code for code, value in enumerate(names)}
    return np.array([lookup.get(value, -1) for value in said.to_list()], dtype=np.int64), tuple(names)


def _dealt(name: str, code: Codes, names: tuple[str, ...], n_folds: int, rng: np.random.Generator) -> Split:
    """Each value left out in turn where they are few; else values dealt into folds of about equal size."""
    known = code >= 0
    counts = np.bincount(code[known])
    present = np.flatnonzero(counts)
    if names and len(present) <= _FAMILIES:
        fold, parts = code, [(names[k], k) for k in present.tolist()]
    else:
        order = rng.permutation(present)
        if names:  # the largest first, each to the fold that has least
            of, size = np.zeros(len(counts), dtype=np.int64), np.zeros(n_folds)
            for k in order[np.argsort(-counts[order], kind="stable")].tolist():
                of[k] = int(size.argmin())
                size[of[k]] += counts[k]
        else:
            of = np.zeros(len(counts), dtype=np.int64)
            of[order] = np.arange(len(order)) % n_folds
        fold = np.where(known, of[np.maximum(code, 0)], -1)
        parts = [(f"part {k + 1} of {n_folds}", k) for k in range(n_folds)]
    masks = [(part, known & (fold != k), fold == k) for part, k in parts]
    return Split(name, code, names, tuple((part, train, test) for part, train, test in masks if train.sum() >= _LEAST and test.any()))


def _by_time(feedback: Feedback, n_folds: int) -> Split | None:
    """Blocks of time, each predicted by a fit to what came before it."""
    block, names = time_blocks(feedback, n_folds + 1)
    parts = [(names[k], (block >= 0) & (block < k), block == k) for k in range(1, len(names)) if (block == k).any()]
    parts = [(part, train, test) for part, train, test in parts if train.sum() >= _LEAST]
    return Split("time", block, names, tuple(parts)) if parts else None


def _by_source(feedback: Feedback, n_folds: int, rng: np.random.Generator) -> Split | None:
    """Models left out with every judgment that shows them."""
    shown = feedback.judgments["models"]
    known = shown.is_not_null().to_numpy()
    names = shown.explode().drop_nulls().unique().sort().to_list()
    if len(names) < 3:
        return None
    group = {name: k if len(names) <= _FAMILIES else int(g) for k, (name, g) in enumerate(zip(names, rng.permutation(len(names)) % n_folds, strict=True))}  # fmt: skip
    parts: list[tuple[str, Mask, Mask]] = []
    for k in sorted(set(group.values())):
        mine = [name for name in names if group[name] == k]
        test = shown.list.eval(pl.element().is_in(mine)).list.any().fill_null(value=False).to_numpy() & known
        if (known & ~test).sum() >= _LEAST and test.any():
            parts.append((mine[0] if len(mine) == 1 else f"{mine[0]} and {len(mine) - 1} more", known & ~test, test))
    code = np.where(known, 0, -1).astype(np.int64)
    return Split("source", code, tuple(names), tuple(parts)) if len(parts) > 1 else None


def _reference(split: Split, n_folds: int, rng: np.random.Generator) -> list[Job]:
    """A random split of the same judgments and training size, where the plain random split has others; else nothing."""
    size = int(np.mean([train.sum() for _, train, _ in split.parts]))
    usual = (n_folds - 1) / n_folds * len(split.code)
    if split.known.all() and size >= _NEAR * usual:
        return []
    rows = np.flatnonzero(split.known)
    fold = np.full(len(split.code), -1)
    fold[rng.permutation(rows)] = np.arange(len(rows)) % n_folds
    tested = np.any([test for _, _, test in split.parts], axis=0)
    jobs: list[Job] = []
    for k in range(n_folds):
        left = np.flatnonzero((fold >= 0) & (fold != k))
        train = np.zeros(len(fold), dtype=bool)
        train[rng.choice(left, min(size, len(left)), replace=False)] = True
        jobs.append(Job(split.name, f"random part {k + 1}", train, (fold == k) & tested))
    return jobs


# ---------------------------------------------------------------------------------------------- what was found


def _joined(cross: CrossFit, split: Split, results: Sequence[pl.DataFrame | SeamarkError]) -> pl.DataFrame | str:
    """All parts' predictions beside the comparisons; or why there are none."""
    failed = [str(r) for r in results if isinstance(r, SeamarkError)]
    if len(failed) == len(results):
        return failed[0] if failed else "No part is large enough."
    parts = [r.with_columns(part=pl.lit(k)) for k, r in enumerate(results) if isinstance(r, pl.DataFrame)]
    frame = pl.concat(parts, how="diagonal").join(cross.asked, on=["row", "first", "second"], how="left", maintain_order="left")
    if frame.height < _LEAST:
        return f"{counted(frame.height, 'decided comparison')} could be tested; {_LEAST} are needed."
    unit = frame["part"].to_numpy() if split.name in ("source", "time") else split.code[frame["row"].to_numpy()]
    return frame.with_columns(unit=pl.Series(unit))


def _together(results: Sequence[pl.DataFrame | SeamarkError]) -> pl.DataFrame | None:
    parts = [r for r in results if isinstance(r, pl.DataFrame)]
    return pl.concat(parts, how="diagonal") if parts else None


def _clusters(frame: pl.DataFrame, unit: str = "held-out unit") -> dict[str, Codes]:
    """What is held out, rater and prompt; where none repeats, the response."""
    found = {unit: frame["unit"].to_numpy()} if "unit" in frame.columns and frame["unit"].n_unique() >= _SAMPLE else {}
    found |= {name: frame[name].cast(pl.Int64).to_numpy() for name in ("rater", "prompt")}
    found = {name: code for name, code in found.items() if 1 < len(np.unique(code)) < len(code)}
    return found or {"response": frame["first"].cast(pl.Int64).to_numpy()}


def _share(values: pl.Series, frame: pl.DataFrame, unit: str = "held-out unit") -> tuple[Interval, str]:
    return clustered_share(values.to_numpy(), _clusters(frame, unit))


def _mean(values: Array, frame: pl.DataFrame, unit: str = "held-out unit") -> tuple[Interval, str]:
    return clustered_mean(values, _clusters(frame, unit))


def _plain(interval: Interval) -> dict[str, float | int | None]:
    low, high = interval.ends
    return {"estimate": interval.estimate, "low": low, "high": high, "n": interval.n}


def _finding(split: Split, frame: pl.DataFrame, beside: pl.DataFrame | None, jobs: Sequence[Job], *, own_size: bool) -> Finding:
    """One split: what it shows, beside the random split, people and rules on the same judgments."""
    unit = split.words.removesuffix("s") if split.name not in ("random", "axis") else "axis" if split.name == "axis" else "judgment"
    if split.name == "random":
        frame = frame.drop("unit")
    accuracy, how = _share(frame["hit"], frame, unit)
    loss, _ = _mean(frame["loss"].to_numpy(), frame, unit)
    details: dict[str, Any] = {"accuracy": _plain(accuracy), "log_loss": _plain(loss)}
    where = (
        "a random part of the judgments"
        if split.name == "random"
        else "judgments made later"
        if split.name == "time"
        else f"{split.words} never trained on"
    )
    title = f"On {where}, the model agrees with the rater in {figure(accuracy)} of {counted(frame.height, 'decided comparison')}"
    verdict: Verdict = "ok"
    remedies: list[str] = []
    paired = None
    if beside is not None:
        keys = ["row", "first", "second"]
        both = frame.join(
            beside.group_by(keys).agg(pl.col("hit", "loss").mean()), on=keys, how="inner", suffix="_random", maintain_order="left"
        )
        if both.height >= _LEAST:
            paired, _ = _mean((both["hit"] - both["hit_random"]).to_numpy(), both, unit)
            nats, _ = _mean((both["loss"] - both["loss_random"]).to_numpy(), both, unit)
            details["random"] = {"accuracy": float(both["hit_random"].mean()), "log_loss": float(both["loss_random"].mean())}  # type: ignore[arg-type]  # a mean of numbers
            details["difference"] = {"accuracy": _plain(paired), "log_loss": _plain(nats)}
            title += f", {gain(paired)} than where single judgments are held out"
            if paired.high < 0:
                verdict = "warning" if paired.estimate < -THRESHOLDS.generalisation_warning else "notice"
                remedies.append(f"Expect this figure, not the random split's, of new {split.words}; collect judgments of more of them.")
    others = frame.filter(pl.col("majority").is_not_null())
    if others.height >= _LEAST:
        ceiling, _ = _share(others["majority"], others, unit)
        ahead, _ = _mean((others["hit"] - others["majority"]).to_numpy(), others, unit)
        details["ceiling"] = _plain(ceiling) | gain_details(ahead) | {"fit": float(others["hit"].mean())}  # type: ignore[arg-type]  # a mean of numbers
        title += f"; the other raters of the same question do in {figure(ceiling)}"
    rules: dict[str, Any] = {}
    for column in [c for c in frame.columns if c.startswith(RULES)]:
        told = frame.filter(pl.col(column).is_not_null())
        right, _ = _share(told[column], told, unit)
        ahead, _ = _mean((told["hit"] - told[column]).to_numpy(), told, unit)
        rules[column.removeprefix(RULES)] = _plain(right) | gain_details(ahead)
    details["rules"] = rules
    if rules:
        best = max(rules, key=lambda name: rules[name]["estimate"])
        title += f", the trivial rule '{best}' in {rules[best]['estimate']:.1%}"
        if (rules[best]["gain_high"] or 0) < 0:
            verdict = "warning"
            remedies.append(f"The rule '{best}' does better: the model has learned nothing that carries over here.")
    if split.name != "random" and len(split.names):
        details["parts"] = _parts(frame, jobs)
        worst = min(details["parts"], key=lambda part: part["accuracy"])
        details["worst"] = worst["part"]
    placed = float(frame["placed"].mean())  # type: ignore[arg-type]  # a mean of numbers
    size = int(np.mean([job.train.sum() for job in jobs]))
    details |= {"n_train": size, "n_parts": len(jobs), "placed": placed, "unknown": int((~split.known).sum())}
    reason = f"Each part is predicted by a fit to {'what came before' if split.name == 'time' else 'the others'} ({size:,} judgments on average); {how}."
    if own_size:
        reason += f" The random split beside it is of the same judgments, trained on {size:,} as well."
    if split.name not in ("random", "time") and frame["unit"].n_unique() < _SAMPLE:
        reason += f" It holds for these {frame['unit'].n_unique()} {split.words}."
    if placed < 1:
        reason += f" {1 - placed:.0%} show a response that the fit cannot place, and count half."
    if not split.known.all():
        reason += f" {counted(int((~split.known).sum()), 'judgment')} without a known {split.name} left out."
    return Finding.of(
        accuracy, code=f"generalisation/{split.name}", title=f"{title}.", unit="share", reason=reason, verdict=verdict,
        remedy=" ".join(remedies) or None, details=details,
    )  # fmt: skip


def _parts(frame: pl.DataFrame, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Each part's own accuracy and log loss: leave one family out."""
    rows: list[dict[str, Any]] = []
    for (k,), part in frame.group_by("part", maintain_order=True):
        inside = part.drop("unit")
        accuracy, _ = _share(inside["hit"], inside)
        loss, _ = _mean(inside["loss"].to_numpy(), inside)
        low, high = accuracy.ends
        rows.append(
            {
                "part": jobs[int(k)].part,
                "n": part.height,
                "accuracy": accuracy.estimate,
                "low": low,
                "high": high,
                "log_loss": loss.estimate,
            }
        )  # type: ignore[arg-type]  # an index
    return rows


def _headline(findings: Sequence[Finding]) -> list[Finding]:
    """The split after which most is lost."""
    lost = [f for f in findings if f.code.count("/") == 1 and "difference" in f.details]
    if not lost:
        return []
    worst = min(lost, key=lambda f: f.details["difference"]["accuracy"]["estimate"])
    found = worst.details["difference"]["accuracy"]
    name = worst.code.partition("/")[2]
    points = Interval(100 * found["estimate"], 100 * (found["low"] or 0.0), 100 * (found["high"] or 0.0), found["n"], 0)
    said = f"{points.estimate:+.1f} points [{points.low:.1f}, {points.high:.1f}]"
    return [
        Finding.of(
            points, code="generalisation", unit="points", verdict=worst.verdict,
            title=f"Of {counted(len(lost), 'way')} to be new, new {_WORDS.get(name, name)} cost the model most: {said} of accuracy, to {worst.estimate:.1%}.",
            reason=f"The split with the largest loss against a random split, partly so by luck where there are many; see `{worst.code}`.",
            remedy=worst.remedy, details={"splits": {f.code.partition("/")[2]: f.details["difference"]["accuracy"] for f in lost}},
        )
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- trained here, tested there


def _matrix_jobs(split: Split, n_folds: int, rng: np.random.Generator) -> list[Job]:
    """For each value, fits to as many of its judgments as the smallest value has, tested on a fold of all values' judgments."""
    k = min(n_folds, 3)
    counts = np.bincount(split.code[split.known], minlength=len(split.names))
    kept = np.flatnonzero(counts >= _LEAST_MATRIX)
    if len(kept) < 2:
        return []
    size = int(counts[kept].min() * (k - 1) / k)
    inside = np.isin(split.code, kept)
    fold = np.full(len(split.code), -1)
    fold[rng.permutation(np.flatnonzero(inside))] = np.arange(int(inside.sum())) % k
    jobs: list[Job] = []
    for value in kept.tolist():
        for part in range(k):
            left = np.flatnonzero((split.code == value) & (fold != part))
            train = np.zeros(len(fold), dtype=bool)
            train[rng.choice(left, min(size, len(left)), replace=False)] = True
            jobs.append(Job(f"{split.name} by {split.name}", split.names[value], train, fold == part))
    return jobs


def _matrix(cross: CrossFit, split: Split, results: Sequence[pl.DataFrame | SeamarkError], jobs: Sequence[Job]) -> Finding:
    code, title = f"generalisation/matrix/{split.name}", f"What {split.words} teach of each other cannot be told."
    good = [(job.part, r) for job, r in zip(jobs, results, strict=True) if isinstance(r, pl.DataFrame)]
    if len({part for part, _ in good}) < 2:
        failed = next((str(r) for r in results if isinstance(r, SeamarkError)), f"Fewer than two have {_LEAST_MATRIX} judgments.")
        return Finding.not_applicable(code, title, failed)
    frame = pl.concat([r.with_columns(trained=pl.lit(part)) for part, r in good], how="diagonal")
    frame = frame.join(cross.asked, on=["row", "first", "second"], how="left", maintain_order="left")
    tested = split.code[frame["row"].to_numpy()]
    frame = frame.with_columns(tested=pl.Series([split.names[c] for c in tested]))
    names = list(dict.fromkeys(part for part, _ in good))
    cells: dict[str, list[list[Any]]] = {key: [[None] * len(names) for _ in names] for key in ("estimate", "low", "high", "n", "log_loss")}
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            part = frame.filter((pl.col("trained") == row) & (pl.col("tested") == column))
            if part.height:
                found, _ = _share(part["hit"], part)
                low, high = found.ends
                values = {"estimate": found.estimate, "low": low, "high": high, "n": found.n, "log_loss": float(part["loss"].mean())}  # type: ignore[arg-type]  # a mean of numbers
                for key, value in values.items():
                    cells[key][i][j] = value
    # each comparison by its own value's fit, and on average by those of the others
    own = pl.col("trained") == pl.col("tested")
    keys = ["row", "first", "second"]
    each = frame.group_by([*keys, "rater", "prompt"], maintain_order=True).agg(
        own=pl.col("hit").filter(own).mean(), other=pl.col("hit").filter(~own).mean()
    ).drop_nulls(["own", "other"])  # fmt: skip
    lost, how = _mean((each["other"] - each["own"]).to_numpy(), each)
    verdict: Verdict = "ok" if lost.high >= 0 else "warning" if lost.estimate < -THRESHOLDS.generalisation_warning else "notice"
    n_train = int(np.mean([job.train.sum() for job in jobs]))
    return Finding.of(
        Interval(100 * lost.estimate, 100 * lost.low, 100 * lost.high, lost.n, lost.n_clusters), code=code, unit="points", verdict=verdict,
        title=f"Trained on another of {len(names)} {split.words}, the model is {gain(lost)} than trained on their own.",
        reason=f"Every fit sees {n_train:,} judgments of one value and is tested on others of each; differences are paired on the same judgments; {how}.",
        remedy=f"Fit values that differ by {split.name}, and say in the charter whose count." if verdict != "ok" else None,
        details={"rows": names, "columns": names, **cells, "n_train": n_train},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- out of support


def _support(frames: Mapping[str, pl.DataFrame]) -> Finding:
    """Errors where the fit's own flag says that the data bears on neither or only one of the responses."""
    name = next((n for n in ("prompt_cluster", "provenance", "source", "prompt") if n in frames), next(iter(frames)))
    return check_support(frames[name], where=f"the split by {name.replace('_', ' ')}")


def check_support(frame: pl.DataFrame, *, where: str = "held-out judgments") -> Finding:
    """Are responses that the training data says little of predicted worse?

    Parameters
    ----------
    frame : one row per held-out comparison: support (0 to 1, of the response with less), hit, rater, prompt, first.

    Source: AUROC of a selective predictor's score for its errors (Hendrycks & Gimpel 2017).
    """
    code, title = "generalisation/support", "Whether the flag for what is out of support tells errors cannot be told."
    frame = frame.drop("unit", strict=False)
    # every comparison twice, so that an undecided prediction is once right and once wrong; the clusters know that they are the same
    told = pl.concat([frame, frame]).with_columns(who=pl.concat([pl.int_range(frame.height, eager=True)] * 2))
    wrong, support = (
        np.concatenate([np.ceil(1 - frame["hit"].to_numpy()), np.floor(1 - frame["hit"].to_numpy())]),
        told["support"].to_numpy(),
    )
    if frame.height < _LEAST or len(np.unique(support)) < 3 or not 0 < wrong.mean() < 1:
        return Finding.not_applicable(
            code, title, "Support, or whether the prediction was right, does not differ over the held-out comparisons."
        )
    flagged = frame["support"].to_numpy() < OUT_OF_SUPPORT
    words = "no comparison is out of support"
    details: dict[str, Any] = {"flagged": int(flagged.sum()), "threshold": OUT_OF_SUPPORT}
    if flagged.any():
        out, _ = _share(1 - frame.filter(pl.Series(flagged))["hit"], frame.filter(pl.Series(flagged)))
        details["error_flagged"] = _plain(out)
        words = f"the model is wrong in {figure(out)} of {counted(int(flagged.sum()), 'comparison')} that are out of support"
        if (~flagged).any():
            rest = frame.filter(pl.Series(~flagged))
            inside, _ = _share(1 - rest["hit"], rest)
            details["error_others"] = _plain(inside)
            words += f", and in {figure(inside)} of the others"
    spans = [_auroc(support, wrong, cluster) for cluster in (*_clusters(told).values(), told["who"].to_numpy())]
    low, high, estimate = max(spans, key=lambda found: found[1] - found[0])
    fifths = np.quantile(support, np.linspace(0, 1, 6))
    details["by_support"] = [
        {"low": float(a), "high": float(b), "n": int(mine.sum()) // 2, "error": float(wrong[mine].mean())}
        for a, b in pairwise(fifths)
        if (mine := (support >= a) & (support <= b)).any()
    ]
    return Finding(
        code=code, estimate=estimate, low=low, high=high, n=frame.height, unit="AUROC", verdict="ok" if low > 0.5 else "notice",
        title=f"In {where}, {words}; low support tells errors with an AUROC of {estimate:.2f} [{low:.2f}, {high:.2f}].",
        reason="0.5 says nothing, 1 tells every error. Where answers are noisy many errors are the rater's, which no flag can tell. Support is that of "
        "the response of which the training data says less; an undecided prediction is half an error; the interval is DeLong's, clustered by rater or prompt, the wider one.",
        remedy=None if low > 0.5 else "Do not rely on abstaining out of support alone; hold out what new data will look like.",
        source="Hendrycks & Gimpel 2017; DeLong et al. 1988; Obuchowski 1997", details=details,
    )  # fmt: skip


def _auroc(support: Array, wrong: Array, cluster: Codes) -> tuple[float, float, float]:
    """(low, high, estimate): AUROC of low support for errors, with DeLong's variance summed by cluster (Obuchowski 1997)."""
    from scipy.stats import rankdata, t

    bad, good = wrong > 0.5, wrong <= 0.5
    score = -support
    m, n = int(bad.sum()), int(good.sum())
    ranks = rankdata(score)
    inside = np.empty(len(score))
    inside[bad], inside[good] = rankdata(score[bad]), rankdata(score[good])
    placement = np.where(bad, (ranks - inside) / n, 1 - (ranks - inside) / m)
    estimate = float(placement[bad].mean())
    code = np.unique(cluster, return_inverse=True)[1]
    k = int(code.max()) + 1
    part = np.where(bad, (placement - estimate) / m, (placement - estimate) / n)
    se = float(np.sqrt((np.bincount(code, part, k) ** 2).sum() * k / max(k - 1, 1)))
    half = float(t.ppf(0.975, max(k - 1, 1))) * se
    return max(0.0, estimate - half), min(1.0, estimate + half), estimate
