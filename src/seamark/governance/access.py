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

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from seamark.checks.findings import ACCESS, Access, Finding, Findings
from seamark.errors import InvalidSetting
from seamark.governance.registers import Claim
from seamark.outputs import whole_file

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
    show what the claim says is for people to judge; claim, evidence and gap stand side by side in the details. A claim of safety also takes a
    scope, and a campaign among its evidence; its gap holds what the campaign did not try, and what it has not seen.
    """
    return Findings(tuple(_check(claim, findings) for claim in claims))


def _check(claim: Claim, findings: Sequence[Finding]) -> Finding:
    if claim.needs not in ACCESS:
        raise InvalidSetting("needs", claim.needs, f"Use {', '.join(ACCESS)}.")
    by_code = {f.code: f for f in reversed(Findings(tuple(findings)).by_severity())}  # of several runs the gravest
    gaps: list[str] = []
    lacking = _lacking(claim, by_code)
    rows: list[dict[str, Any]] = []
    for code in claim.evidence:
        found = by_code.get(code)
        gap = _gap(claim, found)
        rows.append({"code": code, "shows": found.title if found else "", "access": found.access if found else None, "gap": gap})
        gaps += [f"{code} {gap}"] if gap else []
    against = any(code in by_code and by_code[code].verdict == "blocking" for code in claim.evidence)
    stands = len(gaps) < len(claim.evidence) and not against and not lacking
    why = "; ".join([*lacking, *(gaps if claim.evidence else ["no finding is named for it"])])
    unseen = _unseen(claim, findings)
    return Finding(
        code=f"claim/{claim.name}",
        title=f'"{claim.text}" {"has evidence" if stands else "has no evidence"} with {claim.needs} access' + ("." if stands else f": {why}."),
        estimate=float(len(claim.evidence) - len(gaps)), n=len(claim.evidence), unit="count", verdict="ok" if stands else "blocking",
        reason=f"Of n findings named, those that had the access; a count of facts: no interval. {claim.needs} access shows {ALLOWS[claim.needs]}.",
        remedy=None if stands else "Get the access and check, or claim no more than what was looked at.",
        source="Casper et al. 2024",
        details={
            "claim": claim.text, "needs": claim.needs, "scope": claim.scope, "evidence": rows, "can_show": ALLOWS[claim.needs],
            "gap": "; ".join(part for part in (why, unseen) if part),
        },
        access="outside-the-box",
    )  # fmt: skip


def _lacking(claim: Claim, by_code: Mapping[str, Finding]) -> list[str]:
    """What a claim of safety has not."""
    if not claim.safety:
        return []
    tried = [
        c for c in claim.evidence if c.startswith("campaign/") and c in by_code and by_code[c].verdict not in ("blocking", "not_applicable")
    ]
    return [
        *([] if claim.scope.strip() else ["it names no scope"]),
        *([] if tried else ["no campaign with a whole record is named for it"]),
    ]


def _unseen(claim: Claim, findings: Sequence[Finding]) -> str:
    """What the campaigns behind a claim have not tried or seen."""
    if not claim.safety:
        return ""
    untested = dict.fromkeys(name for f in findings if f.code == "campaign/record" for name in f.details.get("untested") or ())
    most = max((f.high for f in findings if f.code == "campaign/unseen" and f.high is not None), default=None)
    said = [f"not tried: {', '.join(untested)}"] if untested else []
    if most is not None:
        said.append(f"one more attempt may find a new kind of failure with a chance of up to {most:.1%}")
    return "; ".join(said)


def claims_table(claims: Sequence[Claim], findings: Sequence[Finding]) -> pl.DataFrame:
    """What is claimed beside what was looked at: a row for each claim and finding named for it, or for none.

    Columns: claim, guarantee (its words), scope, tool (code of the finding), shows (what it says), can_show (what the access that the claim needs
    lets one find out), stands, and gap, which is empty only where nothing is known to be missing.
    """
    rows: list[dict[str, Any]] = []
    for claim, found in zip(claims, check_claims(claims, findings), strict=True):
        for row in found.details["evidence"] or [{"code": "", "shows": "", "gap": ""}]:
            gap = "; ".join(dict.fromkeys(part for part in (row["gap"] and f"{row['code']} {row['gap']}", found.details["gap"]) if part))
            rows.append(
                {
                    "claim": claim.name, "guarantee": claim.text, "scope": claim.scope, "tool": row["code"], "shows": row["shows"],
                    "can_show": ALLOWS[claim.needs], "stands": found.verdict == "ok", "gap": gap,
                }
            )  # fmt: skip
    schema = dict.fromkeys(("claim", "guarantee", "scope", "tool", "shows", "can_show"), pl.String)
    return pl.DataFrame(rows, schema=schema | {"stands": pl.Boolean, "gap": pl.String})


def export_claims(claims: Sequence[Claim], findings: Sequence[Finding], path: str | Path) -> None:
    """The table of claims as a CSV file, to be shown to others.

    Raises
    ------
    InvalidSetting
        If a claim has no evidence, or is one of safety without a scope or a campaign: then nothing is written.
    """
    if blocked := check_claims(claims, findings).blocking:
        raise InvalidSetting("claims", blocked[0].code.removeprefix("claim/"), f"{blocked[0].title.rstrip('.')}. {blocked[0].remedy}")
    with whole_file(Path(path)) as fresh:
        claims_table(claims, findings).write_csv(fresh)


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
