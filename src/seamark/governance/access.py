"""What was looked at, and what may be claimed from it.

Conventions
-----------
Access to a model comes in three steps, each of which has the one before: black-box (ask and read answers), grey-box (also scores,
probabilities, embeddings), white-box (also weights, gradients, and training on). Outside-the-box is not a fourth step but another
matter: data, method, documents and people around the model. Whoever has all weights has seen none of the data, and the other way round.
For a reward the data is most of what there is to see.

Source: Casper et al. 2024 (arXiv 2401.14446): audits must say what access they had, and more access allows strictly more scrutiny.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from seamark.checks.findings import ACCESS, Access, Finding, Findings
from seamark.errors import InvalidSetting
from seamark.governance.registers import Claim

ALLOWS: dict[Access, str] = {
    "black-box": "what it answers to chosen inputs: agreement with judgments, effects of length and order, swaps, hacking by search",
    "grey-box": "how sure it is: calibration, margins, distance from the data; ensembles and their spread",
    "white-box": "how it gets there: parameters and their errors, gradients, parity of checkpoints, what training on it would change",
    "outside-the-box": "what it is made of: who judged, how they were asked, agreement, leakage, whose values by what rule",
}
"""What each level lets an auditor find out."""

_STEPS: tuple[Access, ...] = ("black-box", "grey-box", "white-box")


def grants(had: Access | None, needed: Access) -> bool:
    """Whether what needs one level can be found out with another; nothing where nobody said what was had."""
    if had is None or "outside-the-box" in (had, needed):
        return had == needed
    return _STEPS.index(had) >= _STEPS.index(needed)


def check_claims(claims: Iterable[Claim], findings: Sequence[Finding]) -> Findings:
    """Whether the claims that are made rest on findings that had the access for them: one finding for each, `claim/NAME`.

    A claim stands where a finding that it names is there, could be computed, and had the access that the claim needs, and none that it
    names is blocking. Otherwise it is *blocking*: it must not be made, and the details say what is missing. Whether the findings, with that access, also
    show what the claim says is for people to judge; claim, evidence and gap stand side by side in the details.
    """
    return Findings(tuple(_check(claim, findings) for claim in claims))


def _check(claim: Claim, findings: Sequence[Finding]) -> Finding:
    if claim.needs not in ACCESS:
        raise InvalidSetting("needs", claim.needs, f"Use {', '.join(ACCESS)}.")
    by_code = {f.code: f for f in findings}
    gaps: list[str] = []
    rows: list[dict[str, Any]] = []
    for code in claim.evidence:
        found = by_code.get(code)
        gap = _gap(claim, found)
        rows.append({"code": code, "shows": found.title if found else "", "access": found.access if found else None, "gap": gap})
        gaps += [f"{code} {gap}"] if gap else []
    against = any(code in by_code and by_code[code].verdict == "blocking" for code in claim.evidence)
    stands = len(gaps) < len(claim.evidence) and not against
    why = "; ".join(gaps) if claim.evidence else "no finding is named for it"
    return Finding(
        code=f"claim/{claim.name}",
        title=f'"{claim.text}" {"has evidence" if stands else "has no evidence"} with {claim.needs} access' + ("." if stands else f": {why}."),
        estimate=float(len(claim.evidence) - len(gaps)), n=len(claim.evidence), unit="count", verdict="ok" if stands else "blocking",
        reason=f"Of n findings named, those that had the access; a count of facts: no interval. {claim.needs} access shows {ALLOWS[claim.needs]}.",
        remedy=None if stands else "Get the access and check, or claim no more than what was looked at.",
        source="Casper et al. 2024",
        details={"claim": claim.text, "needs": claim.needs, "evidence": rows}, access="outside-the-box",
    )  # fmt: skip


def _gap(claim: Claim, found: Finding | None) -> str:
    """Why a finding is no evidence; empty where it is."""
    if found is None:
        return "was not computed"
    if found.verdict == "not_applicable":
        return "could not be computed"
    if found.verdict == "blocking":
        return "is blocking itself"
    if not grants(found.access, claim.needs):
        return f"had {found.access or 'no stated'} access"
    return ""
