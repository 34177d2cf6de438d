"""Red-team campaigns: what a search for failures has shown, and how much it has not seen.

A campaign is a TOML file (`Campaign.from_toml`) that answers a bank of questions, with a JSONL file of all attempts, those that found nothing
too. Without its record a campaign supports no claim: its findings are then not applicable, and so is evidence that names them.

Conventions
-----------
Of n attempts f_k is the number of kinds of failure that were seen k times. Estimates are for attempts that are drawn like these,
independently. A team that goes on where something was found does not draw so; the record says which it was, and the findings repeat it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import gammaln

from seamark.checks.comparisons import counted
from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidRecord, InvalidSetting, SeamarkError
from seamark.governance.registers import read_form
from seamark.intervals import Z95, Interval, figure, wilson

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class InvalidCampaign(SeamarkError):
    """A file of a campaign cannot be used."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}")


class Campaign(BaseModel):
    """Who searched what for which failures, how, and where the attempts are; what is left out is open, and supports no claim.

    Source: the question bank of Feffer et al. 2024.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artefact: Text | None = None
    """What was attacked, with its version or hash."""
    threat_model: Text | None = None
    """Who would do what with it, and which harm is meant."""
    risk: Literal["consentive", "dissentive"] | None = None
    """Whether all agree what counts as harm, or it depends on context and on who is asked."""
    team: Text | None = None
    """Who searched: how many, of which background."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Hours of work of all together."""
    access: Text | None = None
    """What they had: queries, scores, weights, documents."""
    method: Literal["manual", "assisted", "algorithmic", "targeted"] | None = None
    """Brute force by hand, with the help of models, by a search program, or at known weaknesses."""
    sampling: Literal["independent", "adaptive"] | None = None
    """Whether attempts were drawn independently, or later ones went on from what earlier ones found."""
    success_rule: Text | None = None
    """What counts as a failure, and who decides."""
    reporting: Text | None = None
    """Whom the results go to."""
    mitigation: Text | None = None
    """What was done about what was found."""
    untested: tuple[Text, ...] | None = None
    """Families of attacks that were not tried; an empty list says that there is none."""
    attempts: Text | None = None
    """JSONL file of all attempts, beside this file: {"family": ..., "kind": ...}, kind null where nothing was found."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Questions that are not answered."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is None)

    @staticmethod
    def from_toml(path: str | Path) -> Campaign:
        """Read a campaign.

        Raises
        ------
        InvalidCampaign
            If it is no TOML, or a key or value is not known; an unknown key names the nearest known one.
        """
        return read_form(path, Campaign, wrong=InvalidCampaign, what="A campaign is a TOML file with keys such as artefact and attempts.")


class Attempt(BaseModel):
    """One attempt to make the artefact fail."""

    model_config = ConfigDict(frozen=True, extra="allow")

    family: Text
    """Family of attacks that it belongs to."""
    kind: Text | None
    """Kind of failure that it found; null for none."""


def read_attempts(path: str | Path) -> tuple[Attempt, ...]:
    """The attempts of a JSONL file; further fields of a line are kept.

    Raises
    ------
    InvalidCampaign
        If there is no such file, or nothing in it.
    InvalidRecord
        If a line is no attempt: one that found nothing says so, with kind null.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a text may hold other ends of line
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidCampaign(str(path), str(error), "Name a JSONL file of all attempts.") from None
    found: list[Attempt] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(Attempt.model_validate(json.loads(line)))
        except json.JSONDecodeError as error:
            raise InvalidRecord(str(path), number, InvalidRecord.WHOLE, line, f"It is no JSON ({error}).") from None
        except ValidationError as error:
            first = error.errors()[0]
            remedy = "Give every attempt a family, and a kind, which is null where nothing was found."
            raise InvalidRecord(
                str(path), number, ".".join(map(str, first["loc"])) or InvalidRecord.WHOLE, first.get("input"), remedy
            ) from None
    if not found:
        raise InvalidCampaign(str(path), "no attempts", "Write one line for each, those that found nothing too.")
    return tuple(found)


# ---------------------------------------------------------------------------------------------- how much was not seen


def unseen_mass(counts: Iterable[int], n: int) -> Interval:
    """The chance that the next attempt finds a kind of failure that was not seen yet.

        U = f_1 / n,    se^2 = (f_1 (1 - f_1 / n) + 2 f_2) / n^2

    The upper bound is at least that of no such attempt in n.

    Parameters
    ----------
    counts : how often each kind was seen.
    n : attempts, those that found nothing too.

    Raises
    ------
    InvalidSetting
        If fewer attempts were made than found something.

    Source: Good 1953, eq. 9; its standard error of Esty 1983, eq. 5.
    """
    counts = np.asarray(list(counts), dtype=np.int64)
    if n < 1 or n < counts.sum():
        raise InvalidSetting("n", n, f"Count all attempts: at least 1, and the {int(counts.sum()):,} that found something.")
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    mass = once / n
    half = Z95 * float(np.sqrt(once * (1 - once / n) + 2 * twice)) / n
    return Interval(mass, max(mass - half, 0.0), min(max(mass + half, no_more_than(n)), 1.0), n, len(counts))


def no_more_than(n: int) -> float:
    """What the rate of a failure that was not seen in n independent attempts does not exceed, with 95% confidence: 1 - .05^(1/n), about 3 / n.

    Source: Hanley & Lippman-Hand 1983.
    """
    return float(-np.expm1(np.log(0.05) / n))


def least_kinds(counts: Iterable[int], n: int) -> Interval:
    """How many kinds of failure there are at least: a lower bound, not an estimate, since nothing in the data tells of kinds that are rare enough.

        S + (n - 1) / n  f_1 (f_1 - 1) / (2 (f_2 + 1))

    Source: Chao 1984 in the form without bias of Chao 2005; log-normal interval of Chao 1987, eq. 12.
    """
    counts = np.asarray(list(counts), dtype=np.int64)
    seen, once, twice = len(counts), int((counts == 1).sum()), int((counts == 2).sum())
    share = (n - 1) / n
    more = share * once * (once - 1) / (2 * (twice + 1))
    if more <= 0:
        return Interval(float(seen), float(seen), float(seen), n, seen)
    spread = (
        share * once * (once - 1) / (2 * (twice + 1))
        + share**2 * once * (2 * once - 1) ** 2 / (4 * (twice + 1) ** 2)
        + share**2 * once**2 * twice * (once - 1) ** 2 / (4 * (twice + 1) ** 4)
    )
    factor = float(np.exp(Z95 * np.sqrt(np.log1p(spread / more**2))))
    return Interval(seen + more, seen + more / factor, seen + more * factor, n, seen)


def expected_new(counts: Iterable[int], n: int, more: int) -> Interval:
    """How many kinds of failure that were not seen yet the next `more` attempts like these will find.

        U = -sum_k (-t)^k f_k,    t = more / n,    se^2 = U + sum_k t^(2k) f_k

    The interval is for what those attempts find, not for its mean. At least 0, and no more than one kind an attempt.

    Raises
    ------
    InvalidSetting
        If more is below 1, or above n: further ahead than as many attempts as were made the sum is nearly all noise.

    Source: Good & Toulmin 1956. The standard error is exact where attempts come as a Poisson process: a kind not seen has no part in the sum, and
    one that was has none in what is new, so that the variances of the two add up.
    """
    counts = np.asarray(list(counts), dtype=np.int64)
    if not 1 <= more <= n:
        raise InvalidSetting("more", more, f"Use 1 to {n:,}, the attempts that were made.")
    seen, often = np.unique(counts[counts > 0], return_counts=True)
    t = more / n
    raw = -float((((-t) ** seen) * often).sum())
    half = Z95 * float(np.sqrt(max(raw, 0.0) + ((t ** (2.0 * seen)) * often).sum()))
    # where nothing was seen once, what a kind that was never seen may do is still open
    high = max(raw + half, more * no_more_than(n))
    return Interval(min(max(raw, 0.0), float(more)), max(raw - half, 0.0), min(high, float(more)), n, len(counts))


def discovery_curve(counts: Iterable[int], n: int, at: Sequence[int]) -> list[Interval]:
    """How many kinds of failure fewer of these attempts would have found, drawn at random: of m attempts sum_i 1 - C(n - x_i, m) / C(n, m).

    It is flat at its end where nearly all that such attempts can find is found.

    Raises
    ------
    InvalidSetting
        If an m is below 0 or above n.

    Source: Hurlbert 1971; interval of the unconditional variance of Colwell et al. 2012, eq. 5, with Chao's lower bound for all kinds.
    """
    counts = np.asarray(list(counts), dtype=np.int64)
    if wrong := [m for m in at if not 0 <= m <= n]:
        raise InvalidSetting("at", wrong[0], f"Use 0 to {n:,}, the attempts that were made.")
    total = max(least_kinds(counts, n).estimate, 1.0)
    curve: list[Interval] = []
    for m in at:
        missed = np.where(n - counts >= m, np.exp(_log_choose(n - counts, m) - _log_choose(np.array([n]), m)), 0.0)
        mean = float((1 - missed).sum())
        half = Z95 * float(np.sqrt(max(((1 - missed) ** 2).sum() - mean**2 / total, 0.0)))
        curve.append(Interval(mean, max(mean - half, 0.0), mean + half, m, len(counts)))
    return curve


def _log_choose(n: NDArray[np.int64], m: int) -> NDArray[np.float64]:
    """log C(n, m); of n below m what is not to be used."""
    top = np.maximum(n, m).astype(np.float64)
    return gammaln(top + 1) - gammaln(m + 1.0) - gammaln(top - m + 1)


def two_teams(one: Sequence[str], two: Sequence[str]) -> Interval:
    """How many kinds of failure there are, by those that two teams who knew nothing of each other both found: (a + 1)(b + 1) / (m + 1) - 1.

    It assumes that kinds are as easily found as each other: it is too low where some are harder.

    Source: Chapman 1951; interval with Seber's variance (1982, p. 60).
    """
    a, b = set(one), set(two)
    m = len(a & b)
    total = (len(a) + 1) * (len(b) + 1) / (m + 1) - 1
    spread = (len(a) + 1) * (len(b) + 1) * (len(a) - m) * (len(b) - m) / ((m + 1) ** 2 * (m + 2))
    half = Z95 * float(np.sqrt(spread))
    return Interval(total, max(total - half, float(len(a | b))), total + half, len(a | b), 2)


def check_campaign(campaign: Campaign, attempts: Sequence[Attempt]) -> Findings:
    """What a campaign shows: whether its record is whole, how often it found a failure, and how much it has not seen.

    `campaign/record` is blocking where a question of the bank is open; the others are then not applicable.
    """
    if campaign.missing:
        record = Finding(
            code="campaign/record", estimate=float(len(campaign.missing)), n=len(Campaign.model_fields), unit="count", verdict="blocking",
            title=f"The record of the campaign leaves {counted(len(campaign.missing), 'question')} open: {', '.join(campaign.missing)}.",
            reason="A count of the questions that a campaign answers before it supports a claim.",
            remedy="Answer them in its file.", source="Feffer et al. 2024",
        )  # fmt: skip
        why = "A campaign without its record supports no claim."
        rest = [
            Finding.not_applicable(f"campaign/{name}", "What the campaign shows is not said.", why)
            for name in ("failures", "unseen", "next", "kinds")
        ]
        return Findings((record, *rest))
    kinds: Mapping[str, int] = Counter(a.kind for a in attempts if a.kind is not None)
    families = Counter(a.family for a in attempts)
    n, hits = len(attempts), sum(kinds.values())
    untested = f"Not tried: {', '.join(campaign.untested)}." if campaign.untested else "No family is named as not tried."
    drawn = (
        "Attempts were drawn independently."
        if campaign.sampling == "independent"
        else "Later attempts went on from earlier ones, so that it speaks of this search and not of users, and its interval is too narrow."
    )
    unseen, least = unseen_mass(kinds.values(), n), least_kinds(kinds.values(), n)
    coming = expected_new(kinds.values(), n, n)
    steps = sorted({round(n * share / 10) for share in range(1, 11)})
    curve = [{"attempts": c.n, "kinds": c.estimate, "low": c.low, "high": c.high} for c in discovery_curve(kinds.values(), n, steps)]
    low, high = wilson(hits, n)
    each = {family: sum(a.kind is not None for a in attempts if a.family == family) for family in families}
    return Findings(
        (
            Finding(
                code="campaign/record", title=f"The record of the campaign answers all {len(Campaign.model_fields)} questions.",
                reason="A count of answers; what they are worth people judge.", source="Feffer et al. 2024", details=campaign.model_dump(mode="json"),
            ),
            Finding(
                code="campaign/failures", estimate=hits / n, low=low, high=high, n=n, unit="share",
                title=f"{hits:,} of {counted(n, 'attempt')} in {len(families)} famil{'y' if len(families) == 1 else 'ies'} found a failure, of "
                f"{counted(len(kinds), 'kind')}. {untested}",
                reason=f"Wilson's interval; n is attempts. {drawn}",
                details={"families": {f: {"attempts": families[f], "failures": each[f]} for f in families}, "kinds": dict(kinds)},
            ),
            Finding(
                code="campaign/unseen", estimate=unseen.estimate, low=unseen.low, high=unseen.high, n=n, unit="share",
                verdict="ok" if campaign.sampling == "independent" else "notice",
                title=f"One more attempt like these would find a kind of failure not seen yet with a chance of {unseen.estimate:.1%} "
                f"[{unseen.low:.1%}, {unseen.high:.1%}].",
                reason=f"Good and Turing's estimate from kinds seen once; n is attempts. {drawn}",
                remedy=None if campaign.sampling == "independent" else "Draw attempts independently, as users would make them, to speak of users.",
                source="Good 1953; Esty 1983",
            ),
            Finding(
                code="campaign/next", estimate=coming.estimate, low=coming.low, high=coming.high, n=n, unit="count",
                verdict="ok" if campaign.sampling == "independent" else "notice",
                title=f"As many attempts again ({n:,}) would find {figure(coming.estimate, None, coming.low, coming.high)} kinds of failure not seen yet "
                f"[{coming.low:.0f}, {coming.high:.0f}].",
                reason=f"Good and Toulmin's estimate, with an interval for what is found; n is attempts. {drawn}",
                remedy=None if campaign.sampling == "independent" else "Draw attempts independently, as users would make them, to speak of users.",
                source="Good & Toulmin 1956", details={"curve": curve},
            ),
            Finding(
                code="campaign/kinds", estimate=least.estimate, low=least.low, high=least.high, n=n, unit="count",
                title=f"There are at least {least.estimate:.0f} kinds of failure [{least.low:.0f}, {least.high:.0f}], {len(kinds)} of them seen.",
                reason=f"A lower bound: of kinds that are rare enough no data tells. {drawn}", source="Chao 1984, 1987",
            ),
        )
    )  # fmt: skip
