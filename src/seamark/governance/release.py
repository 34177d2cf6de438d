"""Letting a reward out: what must be stated, what must be signed, and whether the card says what the files say.

Conventions
-----------
A release is a folder of a study. Its artefacts are its files but the card; its hash is that of their hashes by name, so that one changed
byte anywhere is another release. The card is sealed with a table of the artefacts' hashes; `check_card` then holds it against them: no
mandatory field is empty, every artefact is the one that was sealed, and every number can be found in one.

How a number is found: those of a row of the findings must be roundings of that finding's own figures, with its title word for word; all
others must be roundings of a figure, or stand in a text, of some artefact. The first catches any change; the second a number that comes
from nowhere, and not one number put in the place of another.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from seamark.aggregation.charter import Charter
from seamark.checks.findings import Finding, Findings
from seamark.errors import SeamarkError, UnreadableSource
from seamark.governance.disclosure import HEADING, score_card, table_rows
from seamark.governance.log import Entry, append, append_charter, hash_of, read
from seamark.governance.mandate import check_sign_off
from seamark.models.result import Fit
from seamark.outputs import whole_file

CARD = "card.md"
SEAL = "Artefacts"
"""Heading of the table of hashes."""
MANDATORY = (
    "The data",
    "Whose values, by what rule",
    "Intended use",
    "What was fitted",
    "Limits",
    "Access",
    "Findings",
    HEADING,
    "Open questions",
)
"""Sections without which a card says less than it must."""

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NotReleasable(SeamarkError):
    """A reward may not be released as it is."""

    def __init__(self, folder: str, reasons: Sequence[str]) -> None:
        super().__init__(f"{folder}: not releasable: {'; '.join(reasons)}. Put these right, or keep it for study.")
        self.reasons = tuple(reasons)


# ---------------------------------------------------------------------------------------------- what must be stated


class Manifest(BaseModel):
    """Whose values, how weighted, and what is done where they conflict: none of it may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: Annotated[dict[str, Share], Field(min_length=1)]
    """Groups that are represented, with their share of the raters."""
    weights: Annotated[dict[str, Share], Field(min_length=1)]
    """How much each counts, as a share."""
    conflicts: Annotated[str, Field(min_length=1, pattern=r"\S")]
    """What happens where groups want opposite things: the charter's rule."""
    charter: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Hash of the charter."""
    signed: bool
    """Whether a named person answers for these choices."""
    data: Annotated[str, Field(min_length=1)]
    """Fingerprint of the feedback."""

    @staticmethod
    def of(charter: Charter, fit: Fit, fingerprint: str) -> Manifest:
        """The manifest of a charter over a fit; where the charter leaves weights to the groups' sizes, those are written out."""
        shares = {name: float(share) for name, share in zip(fit.groups, fit.group_share, strict=True)}
        weights = charter.group_weights(fit) or shares
        total = sum(weights.values())
        return Manifest(
            groups=shares, weights={name: weight / total for name, weight in weights.items()}, conflicts=str(charter.rule),
            charter=charter.hash, signed=charter.signed, data=fingerprint,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------- the folder and its card


def artefacts(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every file of a release by its name, the card left out."""
    folder = Path(folder)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names if name != CARD}


def release_hash(folder: str | Path) -> str:
    """The hash of a release: what people sign."""
    return hash_of(artefacts(folder))


def seal_card(folder: str | Path) -> str:
    """Write the artefacts' hashes into the card, in place of those that it may have; returns the card.

    Raises
    ------
    UnreadableSource
        If the folder has no card.
    """
    folder = Path(folder)
    text = _card(folder).partition(f"\n## {SEAL}\n")[0].rstrip() + "\n"
    rows = "\n".join(f"| `{name}` | `{hash}` |" for name, hash in artefacts(folder).items())
    sealed = f"{text}\n## {SEAL}\n\nEvery number above comes from one of these files, by SHA-256.\n\n| file | hash |\n|---|---|\n{rows}\n"
    with whole_file(folder / CARD) as fresh:
        fresh.write_text(sealed, encoding="utf-8")
    return sealed


def _card(folder: Path) -> str:
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSource(str(folder), f"it has no readable {CARD} ({error})", "Make the folder with seamark study.") from None


def check_card(folder: str | Path) -> Findings:
    """Whether a sealed card says what it must, and what the files say.

    Returns `card/fields` (mandatory sections and cells that are empty), `card/artefacts` (files that are missing, changed, or not
    sealed), `card/numbers` (numbers that are in no artefact), each *blocking* where there are some, and `transparency`.
    """
    folder = Path(folder)
    text = _card(folder)
    body = text.split("---\n", 2)[2] if text.startswith("---\n") and text.count("---\n") >= 2 else text
    empty, sections = _empty(body)
    sealed = {name.strip("`"): hash.strip("`") for name, hash, *_ in table_rows(text, SEAL) if name.startswith("`")}
    there = artefacts(folder)
    wrong = {name: "is missing" if name not in there else "was changed" for name, hash in sealed.items() if there.get(name) != hash}
    wrong |= {name: "was not sealed" for name in there if name not in sealed}
    n_numbers, astray = _astray(body.partition(f"\n## {SEAL}\n")[0], folder)
    return Findings(
        (
            _facts("card/fields", empty, sections, "mandatory sections and cells are empty", "State them: a blank is read as an answer.",
                   f"n is sections, and cells of their tables. Mandatory are {', '.join(MANDATORY)}."),
            _facts("card/artefacts", [f"{name} {why}" for name, why in wrong.items()], len({*sealed, *there}), "artefacts are not as sealed",
                   "Draw the card again from the files, and seal it.", "n is files, by SHA-256."),
            _facts("card/numbers", astray, n_numbers, "numbers of the card are in no artefact", "Draw the card again from the files: seamark report.",
                   "n is numbers. Those of a finding must be roundings of its own figures; others, of any figure in an artefact."),
            score_card(text).to_finding(),
        )
    )  # fmt: skip


def _facts(code: str, wrong: Sequence[str], n: int, what: str, remedy: str, reason: str) -> Finding:
    named = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    return Finding(
        code=code, title=f"{len(wrong)} of {n:,} {what}" + (f": {named}." if wrong else "."), estimate=float(len(wrong)), n=n, unit="count",
        verdict="blocking" if wrong else "ok", reason=f"{reason} A count of facts: no interval.", remedy=remedy if wrong else None,
        details={"wrong": list(wrong)}, access="outside-the-box",
    )  # fmt: skip


def _empty(body: str) -> tuple[list[str], int]:
    """Mandatory sections and cells in which nothing stands, and how many there are."""
    parts = re.split(r"^## (.+)$", body, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    empty = [name for name in MANDATORY if not sections.get(name, "").strip()]
    n = len(MANDATORY)
    for name, text in sections.items():
        for row in table_rows(f"## {name}\n{text}", name)[1:]:
            n += len(row)
            empty += [f"a cell of {name} ({row[0] or 'first column'})" for cell in row if not cell]
    return empty, n


# ---------------------------------------------------------------------------------------------- numbers and where they come from

_NUMBER = re.compile(r"(?<![\w.\-/:])[<>+\-−]?\d[\d,]*(?:\.\d+)?(?:e[+\-−]?\d+)?(?![\w:]|\.\d|-\d)")


@dataclass(frozen=True)
class _Figures:
    """Numbers that a text may say."""

    values: NDArray[np.float64]
    said: frozenset[str]

    def holds(self, token: str) -> bool:
        """Whether a number is said so somewhere, or is the rounding of a figure or of its hundredfold."""
        plain = token.replace("−", "-").replace(",", "").lstrip("+")
        if plain[0] in "<>":  # a share too near 0 or 1 to be said to one decimal
            bound = float(plain[1:])
            near = 100 * self.values < bound if plain[0] == "<" else (100 * self.values > bound) & (self.values <= 1)
            return bool((near & (self.values > 0)).any())
        if plain in self.said or plain.lstrip("-") in self.said:
            return True
        mantissa, _, exponent = plain.partition("e")
        half = 0.5000001 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        value = abs(float(plain))
        return bool((np.abs(self.values - value) <= half).any() or (np.abs(100 * self.values - value) <= half).any())


def _tokens(text: str) -> list[str]:
    return _NUMBER.findall(text.replace("\\", ""))


def _figures(*records: object) -> _Figures:
    values: list[float] = []
    said: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, bool) or value is None:
            return
        if isinstance(value, int | float):
            values.append(abs(float(value)))
        elif isinstance(value, str):
            said.update(t.replace("−", "-").replace(",", "").lstrip("+<>") for t in _tokens(value))
        elif isinstance(value, Mapping):
            for name, part in cast("Mapping[str, object]", value).items():
                walk(name)
                walk(part)
        elif isinstance(value, Iterable):
            for item in cast("Iterable[object]", value):
                walk(item)

    walk(list(records))
    return _Figures(np.array(values, dtype=np.float64), frozenset(said | {t.lstrip("-") for t in said}))


def _astray(body: str, folder: Path) -> tuple[int, list[str]]:
    """How many numbers the card has, and those that come from no artefact, each with its place."""
    found = _read_json(folder / "findings.json").get("findings", [])
    study = _read_json(folder / "study.json")
    charter = (folder / "charter.toml").read_text(encoding="utf-8") if (folder / "charter.toml").is_file() else ""
    fixed = (files("seamark") / "templates" / "card.md.j2").read_text(encoding="utf-8")
    verdicts = [f["verdict"] for f in found]
    counts = [len(found), *(verdicts.count(v) for v in set(verdicts)), len(verdicts) - verdicts.count("ok")]
    everything = _figures(found, study, charter, fixed, counts, len(study.get("skipped", ())))
    of_finding = {f["code"]: (f["title"], _figures(f["title"], [f[name] for name in ("estimate", "low", "high", "n")])) for f in found}
    rows = {tuple(row): of_finding.get(row[1]) for row in table_rows(body, "Findings")[1:] if len(row) >= 6}
    astray: list[str] = []
    n = 0
    for row, source in rows.items():
        title, figures = source or ("", everything)
        cells = [row[2], row[3], row[4], row[5]]
        tokens = [t for cell in cells for t in _tokens(cell)]
        n += len(tokens)
        astray += [f"{t} ({row[1]})" for t in tokens if source is None or not figures.holds(t)]
        if source is not None and " ".join(title.split()) != row[2]:
            astray.append(f"the sentence of {row[1]}")
    for line in _outside(body):
        tokens = _tokens(line)
        n += len(tokens)
        astray += [f"{t} ({line.strip()[:40]})" for t in tokens if not everything.holds(t)]
    return n, astray


def _outside(body: str) -> list[str]:
    """The lines of the card that are not in the table of findings."""
    before, _, rest = body.partition("\n## Findings\n")
    _, sign, after = rest.partition("\n## ")
    return [*before.splitlines(), *(sign + after).splitlines()]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


# ---------------------------------------------------------------------------------------------- letting it out


_WRITTEN = {"electorate": "who counts and how much", "rule": "what is done where people conflict"}
"""Keys that a charter to be released must have in its file: a default would be a decision that nobody took."""


def reasons_against(
    folder: str | Path, entries: Sequence[Entry] = (), *, n_sign_offs: int = 0, overridden: bool = False
) -> tuple[str, ...]:
    """Why a study may not be released, a sentence each; nothing where it may.

    Parameters
    ----------
    entries : of the log that the sign-offs are in.
    n_sign_offs : how many people beside the proposer must have signed the charter.
    overridden : whether somebody answers for releasing it although findings are blocking.
    """
    folder = Path(folder)
    try:
        charter = Charter.from_toml(folder / "charter.toml")
        record = tomllib.loads((folder / "charter.toml").read_text(encoding="utf-8"))
    except (SeamarkError, OSError, tomllib.TOMLDecodeError) as error:
        return (f"its charter cannot be read ({error})",)
    reasons: list[str] = []
    if not charter.signed:
        reasons.append("its charter is unsigned: nobody answers for whose values these are")
    left = [what for key, what in _WRITTEN.items() if key not in record]
    if left:
        reasons.append(f"its charter leaves to a default {' and '.join(left)}: write it out")
    if charter.expired:
        reasons.append(f"its charter was valid until {charter.valid_until}")
    if n_sign_offs and (found := check_sign_off(entries, charter.hash, n=n_sign_offs)).verdict == "blocking":
        reasons.append(found.title.rstrip("."))
    blocking = [f["code"] for f in _read_json(folder / "findings.json").get("findings", []) if f["verdict"] == "blocking"]
    if not (folder / "findings.json").is_file():
        reasons.append("it has no findings.json, so nothing is known of it")
    if blocking and not overridden:
        reasons.append(f"findings are blocking: {', '.join(blocking)}")
    reasons += [f.title.rstrip(".") for f in check_card(folder) if f.verdict == "blocking"]
    return tuple(reasons)


def release(folder: str | Path, log: str | Path, *, actor: str, n_sign_offs: int = 0, override: str = "") -> Entry:
    """Release a study: seal its card, check all that must be, and put it into the log, with its charter where the log lacks it.

    Parameters
    ----------
    override : why it is released although findings are blocking; it goes into the log as an override of its own.

    Raises
    ------
    NotReleasable
        With every reason against it. The log is then as it was.
    """
    folder = Path(folder)
    seal_card(folder)
    entries = read(log) if Path(log).is_file() else ()
    if reasons := reasons_against(folder, entries, n_sign_offs=n_sign_offs, overridden=bool(override.strip())):
        raise NotReleasable(str(folder), reasons)
    charter = Charter.from_toml(folder / "charter.toml")
    study = _read_json(folder / "study.json")
    findings = _read_json(folder / "findings.json")
    if not any(e.kind == "charter" and e.body["hash"] == charter.hash for e in entries):
        append_charter(log, charter, actor=actor)
    if override.strip() and (blocking := [f["code"] for f in findings["findings"] if f["verdict"] == "blocking"]):
        append(log, "override", {"what": f"blocking findings: {', '.join(blocking)}", "reason": override}, actor=actor)
    body: dict[str, Any] = {
        "hash": release_hash(folder),
        "charter": charter.hash,
        "data": study["data"]["fingerprint"],
        "artefacts": artefacts(folder),
    }
    if (folder / "fit" / "fit.json").is_file():
        body["manifest"] = Manifest.of(charter, Fit.load(folder / "fit"), body["data"]).model_dump(mode="json")
    return append(log, "release", body, actor=actor)
