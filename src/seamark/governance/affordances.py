"""What an interface lets people say: a sheet per interface, and how many bits of value come through a click.

Conventions
-----------
A sheet says what an interface requests, demands, encourages, discourages, refuses and allows (Davis & Chouinard 2016), in words, and is
a record that people keep. What a click tells is measured: with a the answer and q the question (the responses shown), over the questions
that were asked,

    I(a; q) = H(mean over q of p(a | q)) - mean over q of H(p(a | q))     bits per click

where p is what the fit expects of a rater it does not know, at the reference position. It is 0 where everybody gives the same answer to
everything or answers at random, and at most log2 of the number of answers. For two responses the mean is over both orders, since which is
called the first carries no value. Choices and rankings of three or more are not measured.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.governance.log import append
from seamark.intervals import bootstrap
from seamark.models.observation import decided_sides
from seamark.models.prediction import Predicted, predict
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]

MECHANISMS = ("requests", "demands", "encourages", "discourages", "refuses", "allows")


class Sheet(BaseModel):
    """What one interface makes of those who use it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interface: Text
    """Version of the interface, as `ui_version` of the judgments has it."""
    requests: tuple[Text, ...] = ()
    """What it asks for, and one may leave."""
    demands: tuple[Text, ...] = ()
    """What one cannot go on without."""
    encourages: tuple[Text, ...] = ()
    """What it makes easy."""
    discourages: tuple[Text, ...] = ()
    """What it makes hard."""
    refuses: tuple[Text, ...] = ()
    """What cannot be said."""
    allows: tuple[Text, ...] = ()
    """What it neither furthers nor hinders."""
    collective: bool = False
    """Whether people can answer together."""
    dialogic: bool = False
    """Whether people can answer each other, or are answered."""

    @staticmethod
    def from_toml(path: str | Path) -> Sheet:
        """Read a sheet.

        Raises
        ------
        InvalidSetting
            If it is no TOML, or a key or value is not known.
        """
        try:
            return Sheet.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidSetting("sheet", str(path), f"It cannot be read as TOML ({error}).") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise InvalidSetting(
                f"{path}: {key}", first.get("input"), f"{first['msg']}. Keys are {', '.join(Sheet.model_fields)}."
            ) from None


def log_sheet(path: str | Path, sheet: Sheet, *, actor: str) -> None:
    """Put a sheet into the log, where its versions stay."""
    append(path, "affordances", sheet.model_dump(mode="json"), actor=actor)


def check_sheets(sheets: Sequence[Sheet], feedback: Feedback) -> Finding:
    """Whether each interface that judgments came through has a sheet that says what it refuses."""
    if not feedback.has("ui_version"):
        return Finding.not_applicable(
            "interfaces", "Whether interfaces are described", "The judgments do not say which interface they came through (ui_version)."
        )
    counts = dict(feedback.judgments["ui_version"].drop_nulls().value_counts().sort("ui_version").rows())
    known = {sheet.interface: sheet for sheet in sheets}
    lacking = [name for name in counts if name not in known]
    silent = [name for name in counts if name in known and not (known[name].refuses or known[name].discourages)]
    wrong = [f"{name} has no sheet" for name in lacking] + [f"the sheet of {name} refuses and discourages nothing" for name in silent]
    return Finding(
        code="interfaces", title=f"{len(wrong)} of {len(counts)} interfaces are not described" + (f": {'; '.join(wrong[:3])}." if wrong else "."),
        estimate=float(len(wrong)), n=len(counts), unit="count", verdict="notice" if wrong else "ok",
        reason="n is interfaces; every interface makes something hard, so a sheet on which nothing is has not been filled in. A count: no interval.",
        remedy="Write down what each requests, demands, encourages, discourages, refuses and allows." if wrong else None,
        source="Cooper & Zafiroglu 2024; Davis & Chouinard 2016",
        details={"judgments": counts, "sheets": [s.model_dump(mode="json") for s in sheets]}, access="outside-the-box",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- bits per click


@dataclass(frozen=True)
class Information:
    """What the answers to one kind of question tell of its value."""

    kind: str
    """As the fit names the outcome family: pair, thumbs, rating (with its scale)."""
    n_answers: int
    """Answers that can be given."""
    bits: float
    """Per click."""
    low: float
    high: float
    n: int
    """Distinct questions."""
    clusters: str
    """What the interval draws anew, in words: 40 prompts."""

    @property
    def most(self) -> float:
        """Bits of a click without noise, all answers alike frequent."""
        return float(np.log2(self.n_answers))


def information_per_click(fit: Fit, feedback: Feedback, *, seed: int = 0) -> list[Information]:
    """Bits of value that a click of each kind tells, for the questions of the feedback.

    The interval draws prompts with replacement, or responses where there is but one prompt: it holds for others like them, at the
    parameters of this fit.
    """
    unknown = feedback.judgments.with_columns(
        rater=pl.lit(None, dtype=feedback.judgments["rater"].dtype), order_known=pl.lit(value=False)
    )  # fmt: skip
    found: list[Information] = []
    for block in predict(fit, replace(feedback, judgments=unknown)):
        if block.shown.shape[1] > 2:
            continue
        p, own = _both_orders(block), _entropy(block.probs)
        fold = len(p) // len(own)
        weight, own = np.tile(block.count, fold), np.tile(own, fold)
        several = len(np.unique(block.prompt)) > 1
        cluster = np.unique(block.prompt if several else block.shown[:, 0], return_inverse=True)[1]
        n_clusters = int(cluster.max()) + 1
        bits = functools.partial(_bits, p, own, weight)
        low, high = bootstrap(bits, np.tile(cluster, fold), seed=seed) if n_clusters > 1 else (0.0, float(np.log2(p.shape[1])))
        said = f"{n_clusters:,} {'prompt' if several else 'response'}{'s' if n_clusters > 1 else ''}"
        found.append(Information(block.name, p.shape[1], bits(np.ones(len(p))), low, high, len(np.unique(block.shown, axis=0)), said))
    return sorted(found, key=lambda i: i.kind)


def check_information(fit: Fit, feedback: Feedback, *, seed: int = 0) -> Findings:
    """Bits per click of each kind of question, `information/KIND`, and how much less that is than the richest kind asked here.

    *Notice* where a kind tells clearly less than half of the richest one; one kind alone has nothing to be compared with.

    Source: Cooper & Zafiroglu 2024 (interfaces for feedback further what is simple and frequent).
    """
    found = information_per_click(fit, feedback, seed=seed)
    if not found:
        reason = "No question about one or two responses can be placed by the fit."
        return Findings((Finding.not_applicable("information", "How much a click tells", reason),))
    best = max(found, key=lambda i: i.bits)
    return Findings(tuple(_information_finding(i, best if len(found) > 1 else None) for i in found))


def _information_finding(found: Information, best: Information | None) -> Finding:
    title = f"A click of kind {found.kind} tells {found.bits:.3f} [{found.low:.3f}, {found.high:.3f}] bits of at most {found.most:.2f}"
    lost = None
    if best is not None and best is not found and best.bits > 0:
        lost = 1 - found.bits / best.bits
        title += f", {lost:.0%} less than one of kind {best.kind}"
    poor = best is not None and best is not found and 2 * found.high < best.low
    return Finding(
        code=f"information/{found.kind}", title=f"{title}.", estimate=found.bits, low=found.low, high=found.high, n=found.n, unit="bits per click",
        verdict="notice" if poor else "ok",
        reason=f"Mutual information of answer and question under the fit, for a rater it does not know; n is questions; the interval draws the {found.clusters} anew.",
        remedy=f"Ask in the form of kind {best.kind}: the same number of clicks would tell more than twice as much." if best is not None and poor else None,
        source="Cooper & Zafiroglu 2024",
        details={"kind": found.kind, "n_answers": found.n_answers, "most": found.most, "lost": lost, "best": None if best is None else best.kind},
        access="white-box",
    )  # fmt: skip


def _both_orders(block: Predicted) -> Array:
    """(n or 2 n, n_answers) probabilities; those of pairs also as they would be with the responses the other way round."""
    if not block.is_pair:
        return block.probs
    first, second = decided_sides(block.family)
    turned = np.arange(block.probs.shape[1])
    turned[first], turned[second] = second[::-1], first[::-1]
    return np.vstack([block.probs, block.probs[:, turned]])


def _bits(p: Array, own: Array, weight: Array, drawn: Array) -> float:
    """I(a; q) where each question counts `drawn` times its weight; NaN where none was drawn."""
    v = drawn * weight
    return float(_entropy((v @ p / v.sum())[None])[0] - v @ own / v.sum()) if v.sum() else float("nan")


def _entropy(p: Array) -> Array:
    """(n,) entropy of each row, in bits."""
    return -(p * np.log2(np.maximum(p, 1e-300))).sum(1)
