"""`Finding`: what a check says, in a form that people, tests and machines read alike."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from seamark.intervals import Interval, shown

Verdict = Literal["ok", "notice", "warning", "blocking", "not_applicable"]
VERDICTS: tuple[Verdict, ...] = ("blocking", "warning", "notice", "ok", "not_applicable")
"""Most severe first."""

Access = Literal["black-box", "grey-box", "white-box", "outside-the-box"]
ACCESS: tuple[Access, ...] = ("black-box", "grey-box", "white-box", "outside-the-box")
"""What whoever found it had access to: answers to queries; also scores and embeddings; also weights and gradients; or what lies outside
the model: data, method, documents, people (Casper et al. 2024)."""

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result of one check.

    A finding either has an `estimate` (with `low`, `high` and `n`), or is `not_applicable` with the reason, or is a count
    or list of facts for which an interval has no meaning (then `low` and `high` are null and `reason` says so).
    """

    code: str
    """Stable word, e.g. accuracy; a slice follows after a slash: accuracy/rater."""
    title: str
    """One plain sentence with the numbers in it, readable on its own."""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    """Bounds of the 95% interval."""
    n: int | None = None
    """How many units the estimate rests on; the unit of n is stated in `reason` or is judgments."""
    unit: str | None = None
    """Unit of the estimate: share, logits, nats, seconds, count, ..."""
    verdict: Verdict = "ok"
    reason: str | None = None
    """How it was computed (clustering, what was left out), or why it could not be."""
    remedy: str | None = None
    """What to do about it."""
    source: str | None = None
    """Where the method comes from."""
    details: dict[str, Any] = field(default_factory=dict)
    """Tables and arrays behind the sentence, for charts: JSON-ready values only."""
    access: Access | None = None
    """What access the finding rests on; null where nobody said, which supports no claim that needs any."""

    @staticmethod
    def of(
        interval: Interval,
        *,
        code: str,
        title: str,
        unit: str,
        reason: str,
        verdict: Verdict = "ok",
        remedy: str | None = None,
        source: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> Finding:
        """A finding about an estimate with its interval; bounds that are not finite (the mean of one value) are left out."""
        bounds = interval.ends
        return Finding(
            code=code, title=title, estimate=interval.estimate, low=bounds[0], high=bounds[1], n=interval.n, unit=unit, verdict=verdict,
            reason=reason if interval.bounded else f"{reason} No interval: one value has no spread.", remedy=remedy, source=source,
            details=details or {},
        )  # fmt: skip

    @staticmethod
    def not_applicable(code: str, title: str, reason: str, *, remedy: str | None = None) -> Finding:
        """A finding that says why the quantity cannot be computed from this data."""
        return Finding(code=code, title=title, verdict="not_applicable", reason=reason, remedy=remedy)

    @property
    def about(self) -> str:
        """Of a finding that a later command has added to a study, that command and what it was about, as they were asked for; else empty."""
        asked = (self.details.get("command"), self.details.get("subject")) if self.details.get("added") else ()
        return shown(" ".join(str(part) for part in asked if part))

    @property
    def label(self) -> str:
        """Its code, and what it is about where a later command has added it: what tells it from others in one report."""
        return f"{self.code} ({self.about})" if self.about else self.code

    def reworded(self, words: Mapping[str, str]) -> Finding:
        """The same finding, with other words in its title and reason, capital where the old ones have one."""
        title, reason = self.title, self.reason
        for old, new in words.items():
            for a, b in ((old, new), (old[:1].upper() + old[1:], new[:1].upper() + new[1:])):
                title, reason = (text and re.sub(rf"\b{re.escape(a)}\b", lambda _, b=b: b, text) for text in (title, reason))
        return replace(self, title=title or "", reason=reason)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; numbers that are not finite would be our bug, so they raise."""
        record = asdict(self)
        for name in ("estimate", "low", "high"):
            value = record[name]
            if value is not None and not math.isfinite(value):
                raise ValueError(f"finding {self.code}: {name} is {value}")
        return record

    def __str__(self) -> str:
        interval = f" [{self.low:.3g}, {self.high:.3g}]" if self.low is not None and self.high is not None else ""
        estimate = f"{self.estimate:.3g}{interval}" if self.estimate is not None else "-"
        return f"{self.verdict:>14}  {self.code:<24} {estimate:<26} {self.title}"


@dataclass(frozen=True)
class Findings(Sequence[Finding]):
    """Findings in the order of the checks; prints as a table, most severe first."""

    items: tuple[Finding, ...]

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __add__(self, other: Iterable[Finding]) -> Findings:
        return Findings((*self.items, *other))

    def get(self, code: str) -> Finding | None:
        """The finding with this code, if there is one."""
        return next((f for f in self.items if f.code == code), None)

    def by_severity(self) -> list[Finding]:
        return sorted(self.items, key=lambda f: VERDICTS.index(f.verdict))

    @property
    def blocking(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.items if f.verdict == "blocking")

    @property
    def own(self) -> Findings:
        """Of a study, what it found itself; what later commands have added is about other models, or other data."""
        return Findings(tuple(f for f in self.items if not f.details.get("added")))

    def with_access(self, access: Access) -> Findings:
        """The same findings, those that do not say what access they rest on stamped with `access`."""
        return Findings(tuple(f if f.access else replace(f, access=access) for f in self.items))

    def to_json(self) -> str:
        return json.dumps([f.to_dict() for f in self.items], ensure_ascii=False, indent=1)

    def __str__(self) -> str:
        return "\n".join(str(f) for f in self.by_severity())
