"""Letting a reward out: what must be stated, what must be signed, and whether the card says what the files say.

Conventions
-----------
A release is a folder of a study. Its artefacts are its files but the card; its hash is that of their hashes by name, so that one changed
byte in any of them is another release. The card is sealed with a table of the artefacts' hashes; `check_card` then holds it against them:
no mandatory field is empty, every artefact is the one that was sealed, and every number can be found in one.

How a number is found: a row of the findings must be, cell by cell, the one that its finding makes; all other numbers must be roundings of
a figure, or stand in a text, of some artefact. The first catches any change to the table; the second a number that comes from nowhere,
and neither one number put in the place of another nor a changed word. Those are seen from the card's own hash, which the log has beside
that of the release (`check_release`).
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
from seamark.intervals import count, figure, interval_of
from seamark.models.result import Fit
from seamark.outputs import whole_file
from seamark.reward.catalogue import sections

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
    """What happens where groups want opposite things: the charter's rule, with its parts, share and floors where it has them."""
    charter: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Hash of the charter."""
    signed: bool
    """Whether as many people as it asks for are named as its authors. Signatures in the log are another matter (`check_sign_off`)."""
    data: Annotated[str, Field(min_length=1)]
    """Fingerprint of the feedback."""

    @staticmethod
    def of(charter: Charter, fit: Fit, fingerprint: str) -> Manifest:
        """The manifest of a charter over a fit; where the charter leaves weights to the groups' sizes, those are written out."""
        shares = {name: float(share) for name, share in zip(fit.groups, fit.group_share, strict=True)}
        weights = charter.group_weights(fit) or shares
        total = sum(weights.values())
        return Manifest(
            groups=shares, weights={name: weight / total for name, weight in weights.items()}, conflicts=_conflicts(charter),
            charter=charter.hash, signed=charter.signed, data=fingerprint,
        )  # fmt: skip


def _conflicts(charter: Charter) -> str:
    """The rule, with what else decides where people conflict."""
    said = [
        *(f"{name} {weight:g}" for name, weight in charter.parts.items()),
        *([f"share {charter.share:g}"] if charter.share is not None else []),
        *(f"floor of {name} {least:g}" for name, least in (*charter.floors.groups.items(), *charter.floors.axes.items())),
    ]
    return str(charter.rule) + (f" ({', '.join(said)})" if said else "")


# ---------------------------------------------------------------------------------------------- the folder and its card


def artefacts(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every file of a release by its name, the card left out."""
    folder = Path(folder)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names if name != CARD}


def release_hash(folder: str | Path) -> str:
    """The hash of a release: what people sign."""
    return hash_of(artefacts(folder))


def card_hash(folder: str | Path) -> str:
    """SHA-256 of the card, seal and all."""
    return hashlib.sha256(_card(Path(folder)).encode()).hexdigest()


def seal_card(folder: str | Path) -> str:
    """Write the artefacts' hashes into the card, in place of those that it may have; returns the card.

    Raises
    ------
    UnreadableSource
        If the folder has no card.
    """
    folder = Path(folder)
    text = _unsealed(_card(folder)).rstrip() + "\n"
    rows = "\n".join(f"| `{name}` | `{hash}` |" for name, hash in artefacts(folder).items())
    sealed = f"{text}\n## {SEAL}\n\nThe files that this card was drawn from, by SHA-256.\n\n| file | hash |\n|---|---|\n{rows}\n"
    with whole_file(folder / CARD) as fresh:
        fresh.write_text(sealed, encoding="utf-8")
    return sealed


def _card(folder: Path) -> str:
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSource(str(folder), f"it has no readable {CARD} ({error})", "Make the folder with seamark study.") from None


def _unsealed(text: str) -> str:
    """A card without its table of hashes."""
    return "".join(part for title, part in sections(text) if title != SEAL)


def check_card(folder: str | Path) -> Findings:
    """Whether a sealed card says what it must, and what the files say.

    Returns `card/fields` (mandatory sections and cells that are empty), `card/artefacts` (files that are missing, changed, or not
    sealed), `card/numbers` (numbers that are in no artefact), each *blocking* where there are some, and `transparency`.
    """
    folder = Path(folder)
    text = _card(folder)
    body = text.split("---\n", 2)[2] if text.startswith("---\n") and text.count("---\n") >= 2 else text
    empty, sections = _empty(body)
    rows = [row for row in table_rows(text, SEAL) if len(row) >= 2]
    sealed = {name.strip("`"): hash.strip("`") for name, hash, *_ in rows if name.startswith("`")}
    there = artefacts(folder)
    wrong = {name: "is missing" if name not in there else "was changed" for name, hash in sealed.items() if there.get(name) != hash}
    wrong |= {name: "was not sealed" for name in there if name not in sealed}
    n_numbers, astray = _astray(_unsealed(body), folder)
    return Findings(
        (
            _facts("card/fields", empty, sections, "mandatory sections and cells are empty", "State them: a blank is read as an answer.",
                   f"n is sections, and cells of their tables. Mandatory are {', '.join(MANDATORY)}."),
            _facts("card/artefacts", [f"{name} {why}" for name, why in wrong.items()], len({*sealed, *there}), "artefacts are not as sealed",
                   "Draw the card again from the files, and seal it.", "n is files, by SHA-256."),
            _facts("card/numbers", astray, n_numbers, "numbers of the card are in no artefact", "Draw the card again from the files: seamark report.",
                   "n is numbers. Each cell of the table of findings must be as its finding makes it; other numbers, roundings of a figure in an artefact."),
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
    found = dict(sections(body))
    empty = [name for name in MANDATORY if not found.get(name, "").partition("\n")[2].strip()]
    n = len(MANDATORY)
    for name, text in found.items():
        for row in table_rows(text, name)[1:]:
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
    found = _findings(folder)
    study = _read_json(folder / "study.json")
    charter = (folder / "charter.toml").read_text(encoding="utf-8", errors="replace") if (folder / "charter.toml").is_file() else ""
    fixed = (files("seamark") / "templates" / "card.md.j2").read_text(encoding="utf-8")
    verdicts = [f.verdict for f in found]
    counts = [len(found), *(verdicts.count(v) for v in set(verdicts)), len(verdicts) - verdicts.count("ok")]
    everything = _figures([vars(f) for f in found], study, charter, fixed, counts, len(study.get("skipped", ())))
    wanted = [_row(f) for f in found]
    astray: list[str] = []
    n = 0
    for row in table_rows(body, "Findings")[1:]:
        n += sum(len(_tokens(cell)) for cell in row[2:])
        if row in wanted:
            wanted.remove(row)
        elif found:
            astray.append(f"the row of {row[1] if len(row) > 1 else 'no finding'}")
    left = [f"the row of {row[1]}" for row in wanted]
    astray += [name for name in left if name not in astray]
    for line in "".join(part for title, part in sections(body) if title != "Findings").splitlines():
        tokens = _tokens(line)
        n += len(tokens)
        astray += [f"{t} ({line.strip()[:40]})" for t in tokens if not everything.holds(t)]
    return n, astray


def _row(f: Finding) -> list[str]:
    """The cells of a finding in the table of the card, as the template makes them."""
    none = "not computable" if f.verdict == "not_applicable" else "none"
    unit = f" {f.unit}" if f.unit and f.unit not in ("share", "count") else ""
    estimate = none if f.estimate is None else figure(f.estimate, f.unit, f.low, f.high) + unit
    cells = [
        f.verdict.replace("_", " "), f.label, f.title, estimate, interval_of(f.low, f.high, f.unit) or none, "none" if f.n is None else count(f.n),
    ]  # fmt: skip
    return [" ".join(cell.split()) for cell in cells]


def _findings(folder: Path) -> Findings:
    """The findings of a study; none where they cannot be read."""
    try:
        found = Findings(tuple(Finding(**f) for f in _read_json(folder / "findings.json")["findings"]))
        return found if all(map(_row, found)) else Findings(())
    except (KeyError, TypeError, ValueError, AttributeError):
        return Findings(())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", record) if isinstance(record, dict) else {}


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
        record = tomllib.loads((folder / "charter.toml").read_text(encoding="utf-8-sig"))
        hash = charter.hash  # of its population file, too
    except (SeamarkError, OSError, tomllib.TOMLDecodeError) as error:
        return (f"its charter cannot be read ({error})",)
    reasons: list[str] = []
    if not charter.signed:
        reasons.append(f"its charter is unsigned ({'; '.join(charter.unsigned_for)}): nobody answers for whose values these are")
    left = [what for key, what in _WRITTEN.items() if key not in record]
    if left:
        reasons.append(f"its charter leaves to a default {' and '.join(left)}: write it out")
    if charter.expired:
        reasons.append(f"its charter was valid until {charter.valid_until}")
    study = _read_json(folder / "study.json")
    if (study.get("charter_hash"), study.get("charter_signed")) != (hash, charter.signed):
        reasons.append("its signal was made under another charter than the one beside it: run the study again under it")
    if n_sign_offs and (found := check_sign_off(entries, hash, n=n_sign_offs)).verdict == "blocking":
        reasons.append(found.title.rstrip("."))
    if not (folder / "fit" / "fit.json").is_file():
        reasons.append("nothing was fitted")
    else:
        try:
            _manifest(folder, charter, study)
        except (SeamarkError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reasons.append(f"whose values it has cannot be stated ({' '.join(str(error).split())})")
    if not (folder / "signal" / "train.jsonl").is_file():
        reasons.append("it has no signal")
    if not (findings := _findings(folder)):
        reasons.append("it has no findings.json that can be read, so nothing is known of it")
    if (blocking := _blocking(findings)) and not overridden:
        reasons.append(f"findings are blocking: {', '.join(blocking)}")
    reasons += [f.title.rstrip(".") for f in check_card(folder) if f.verdict == "blocking"]
    return tuple(reasons)


def _manifest(folder: Path, charter: Charter, study: Mapping[str, Any]) -> Manifest:
    return Manifest.of(charter, Fit.load(folder / "fit"), study["data"]["fingerprint"])


def _blocking(findings: Findings) -> list[str]:
    return [f.code for f in findings if f.verdict == "blocking"]


def release(folder: str | Path, log: str | Path, *, actor: str, n_sign_offs: int = 0, override: str = "") -> Entry:
    """Release a study: seal its card, check all that must be, and put it into the log, with its charter where the log lacks it.

    A card that is sealed is not sealed again: what was changed or taken away since is a reason against it. A card that is drawn again has
    no seal.

    Parameters
    ----------
    override : why it is released although findings are blocking; it goes into the log as an override of its own.

    Raises
    ------
    NotReleasable
        With every reason against it. The log is then as it was.
    """
    folder = Path(folder)
    if SEAL not in dict(sections(_card(folder))):
        seal_card(folder)
    entries = read(log) if Path(log).is_file() else ()
    if reasons := reasons_against(folder, entries, n_sign_offs=n_sign_offs, overridden=bool(override.strip())):
        raise NotReleasable(str(folder), reasons)
    charter = Charter.from_toml(folder / "charter.toml")
    manifest = _manifest(folder, charter, _read_json(folder / "study.json"))
    body: dict[str, Any] = {
        "hash": release_hash(folder),
        "card": card_hash(folder),
        "charter": charter.hash,
        "data": manifest.data,
        "artefacts": artefacts(folder),
        "manifest": manifest.model_dump(mode="json"),
    }
    blocking = _blocking(_findings(folder))
    if not any(e.kind == "charter" and e.body["hash"] == charter.hash for e in entries):
        append_charter(log, charter, actor=actor)
    if override.strip() and blocking:
        append(log, "override", {"what": f"blocking findings: {', '.join(blocking)}", "reason": override}, actor=actor)
    return append(log, "release", body, actor=actor)


def check_release(folder: str | Path, entries: Iterable[Entry]) -> Findings:
    """`check_card`, and `card/released`: whether the files and the card are those of the last release in a log, *blocking* where not."""
    last = next((e.body for e in reversed(tuple(entries)) if e.kind == "release"), None)
    wrong = ["the log has no release"] if last is None else []
    if last is not None:
        wrong += [] if last["hash"] == release_hash(folder) else ["the files"]
        wrong += [] if last.get("card") == card_hash(folder) else ["the card"]
    of_log = _facts("card/released", wrong, 2, "are not as released", "Put back what was released, or release what is there.",
                    "n is the hashes of the files and of the card, in the last release of the log.")  # fmt: skip
    return Findings((*check_card(folder), of_log))
