"""Predictions of judgments by fits that did not see them: who is trained on what, run once, kept in a folder, and set beside each judgment.

Conventions
-----------
A *comparison* is one decided order of two responses, as in `comparisons`; `first` and `second` are response codes of the whole feedback, and
`won` says whether the first was preferred. Where a fit cannot place a response, its prediction is a coin's toss: p = 1/2, half a hit, log 2 nats.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.agreement import left_out
from seamark.checks.baselines import rule_hits
from seamark.checks.comparisons import Comparisons, compare
from seamark.checks.held_out import Cells, decided_cells
from seamark.errors import SeamarkError
from seamark.models import fit
from seamark.models.observation import Observation
from seamark.models.people import People
from seamark.models.prediction import predict
from seamark.models.result import Fit
from seamark.models.utility import Utility
from seamark.outputs import whole_file
from seamark.progress import Progress
from seamark.records import Feedback

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RULES = "rule: "
"""What the columns with the hits of trivial rules begin with."""


@dataclass(frozen=True)
class Job:
    """One fit, and what it is tested on."""

    split: str
    part: str
    """What is held out, in words."""
    train: Mask
    """(n_judgments,)"""
    test: Mask
    """(n_judgments,)"""


def settings_of(feedback: Feedback, utility: Utility | None, people: People | None, observation: Observation | None, seed: int) -> str:
    """All that decides what fits to parts of this feedback say, but for the parts."""
    parts = {"utility": utility, "people": people, "observation": observation}
    said: dict[str, Any] = {name: part.to_dict() if part is not None else None for name, part in parts.items()}
    said |= {"seed": seed, "data": feedback.fingerprint, "version": version("seamark"), "rules": 2}
    return json.dumps(said, sort_keys=True, default=str)


def kept(folder: Path | None, settings: str, masks: Sequence[Mask], make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """What was made of these parts under these settings before, from a folder; else it is made, and kept there."""
    if folder is None:
        return make()
    print_ = hashlib.blake2b(settings.encode(), digest_size=16)
    for mask in masks:
        print_.update(np.packbits(mask).tobytes())
    path = folder / f"{print_.hexdigest()}.parquet"
    with contextlib.suppress(OSError, pl.exceptions.PolarsError):  # what is not there, or torn, is made again, to the same numbers
        return pl.read_parquet(path)
    found = make()
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as fresh:
        found.write_parquet(fresh)
    return found


@dataclass(frozen=True, kw_only=True)
class CrossFit:
    """How fits are made of parts of the feedback, and where what they predict is kept."""

    feedback: Feedback
    utility: Utility | None = None
    people: People | None = None
    observation: Observation | None = None
    seed: int = 0
    resume: Path | None = None
    """Folder of finished jobs; a job whose data or settings differ in anything is another one."""

    @cached_property
    def comparisons(self) -> Comparisons:
        """What is tested: decided comparisons of two responses, the most direct kind there is."""
        found = compare(self.feedback, seed=self.seed).most_direct().decided()
        return found.where(found.left != found.right)

    @cached_property
    def asked(self) -> pl.DataFrame:
        """Per comparison: row (of the judgment), first, second, rater, prompt, won, pair, ordered, and what the other raters of the same
        question say of it: majority (1, 1/2 or 0; null where nobody else answered) and surprise (nats)."""
        c = self.comparisons
        n = self.feedback.n_raters
        frame = pl.DataFrame(
            {
                "row": c.row, "first": c.left, "second": c.right, "rater": np.where(c.rater < 0, n, c.rater),
                "prompt": np.where(c.prompt < 0, self.feedback.n_prompts, c.prompt), "won": c.sign > 0, "pair": c.kind == 0,
            }
        ).with_columns(ordered=pl.Series(self._ordered)[c.row])  # fmt: skip
        everyone = compare(self.feedback, seed=self.seed)
        scored, majority, alike = left_out(everyone.where((everyone.left != everyone.right) & np.isin(everyone.kind, np.unique(c.kind))))
        people = pl.DataFrame(
            {"row": scored.row, "first": scored.left, "second": scored.right, "majority": majority, "surprise": -np.log(alike)}
        )
        return frame.join(people.unique(["row", "first", "second"]), on=["row", "first", "second"], how="left", maintain_order="left")

    @cached_property
    def _ordered(self) -> Mask:
        frame = self.feedback.judgments
        pair = (frame["kind"].cast(pl.String) == "pair").to_numpy()
        return pair & frame["order_known"].fill_null(value=False).to_numpy()

    @cached_property
    def _settings(self) -> str:
        return settings_of(self.feedback, self.utility, self.people, self.observation, self.seed)

    def fit(self, train: Feedback) -> Fit:
        """A fit to some judgments; that it has not quite converged is no reason to stop."""
        return fit(
            train, utility=self.utility, people=self.people, observation=self.observation, require_converged=False, require_identified=False,
            seed=self.seed,
        )  # fmt: skip

    def run(self, jobs: Sequence[Job], progress: Progress | None = None) -> list[pl.DataFrame | SeamarkError]:
        """What each job's fit predicts (`predicted`), or why there is none; jobs that were finished before are read."""
        out: list[pl.DataFrame | SeamarkError] = []
        for k, job in enumerate(jobs):
            if progress is not None:
                progress(job.split, k / len(jobs))
            try:
                out.append(self._finished(job))
            except SeamarkError as error:
                out.append(error)
        return out

    def _finished(self, job: Job) -> pl.DataFrame:
        return kept(self.resume, self._settings, (job.train, job.test), lambda: self.predicted(job))

    def predicted(self, job: Job) -> pl.DataFrame:
        """Per comparison tested: row, first, second, p, hit, loss, support (the lower one of the two responses), placed, and hits of rules."""
        asked = self.asked.filter(pl.Series(job.test)[self.asked["row"]])
        train = self.feedback.filter(job.train)
        fitted = self.fit(train)
        # the judgments alone are filtered: codes stay those of the whole feedback
        test = replace(self.feedback, judgments=self.feedback.judgments.filter(pl.Series(job.test)))
        keys = ["row", "first", "second"]
        cells = decided_cells(fitted, test, predict(fitted, test, apart=True)).frame
        if cells.height:
            told = cells.with_columns(row=pl.Series(np.flatnonzero(job.test))[cells["row"]]).unique(keys, keep="first", maintain_order=True)
            frame = asked.join(told.select(*keys, "p", "loss", "hit"), on=keys, how="left", maintain_order="left")
        else:
            frame = asked.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in ("p", "loss", "hit"))
        if not asked["pair"].all():  # orders that choices, rankings and ratings imply: by the gap of the mean person
            gaps = fitted.gaps(self.feedback, asked["first"].to_numpy(), asked["second"].to_numpy())
            p = 1 / (1 + np.exp(-gaps.mean / np.sqrt(1 + np.pi / 8 * gaps.ignorance**2)))
            right = np.where(asked["won"], p, 1 - p)
            implied = pl.DataFrame(
                {"p": p, "loss": -np.log(np.maximum(right, 1e-300)), "hit": np.where(p == 0.5, 0.5, (right > 0.5).astype(float))}
            )
            known = pl.Series(gaps.known & ~asked["pair"].to_numpy())
            frame = frame.with_columns(
                pl.when(known).then(implied[name]).otherwise(pl.col(name)).alias(name) for name in ("p", "loss", "hit")
            )
        support = fitted.support(self.feedback)
        support = np.minimum(support[asked["first"]], support[asked["second"]])
        held = Cells(asked.with_columns(count=pl.lit(1.0)), {})
        rules, _ = rule_hits(test, held, train) if len(held) else ({}, {})
        return frame.select(
            "row", "first", "second", pl.col("p").fill_null(0.5), pl.col("hit").fill_null(0.5), pl.col("loss").fill_null(float(np.log(2))),
            pl.Series("support", np.where(np.isfinite(support), support, 0.0)), placed=pl.col("p").is_not_null(),
            **{RULES + _lengthwise(name): pl.Series(hits, dtype=pl.Float64) for name, hits in rules.items()},
        )  # fmt: skip


def _lengthwise(name: str) -> str:
    """Parts may find that longer wins, or that shorter does: one rule."""
    return "length" if name in ("longer wins", "shorter wins") else name
