"""What is told to whom: how transparent a card is, and one record shown differently to the public, to peers and to a regulator.

Conventions
-----------
The transparency score is read from the text of the card and nothing else: a table with one row per indicator, under the heading
`HEADING`. Whoever has the card gets the score.

Redaction goes by paths. The parts of a record are named by dots, `log.charter.body.title`; the items of a list have the path of the
list. A rule is a path in which `*` stands for any one name, and `**` at the end for everything below. A recipient is shown what a rule of
theirs names, and nothing else: what is new, or was forgotten, is redacted. A redacted part says so, and nothing of what was in it is left,
names and number of its parts included. (Where some parts of a thing are shown, the names of its others are.)
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from seamark.checks.findings import Finding
from seamark.errors import InvalidSetting, SeamarkError
from seamark.governance.log import Entry
from seamark.governance.registers import QUESTIONS
from seamark.records import Feedback
from seamark.reward.catalogue import sections, unfenced

# ---------------------------------------------------------------------------------------------- transparency


@dataclass(frozen=True)
class Indicator:
    """One thing that a card can disclose about the people behind it."""

    name: str
    question: str
    figure: bool = False
    """Whether only a number answers it."""


INDICATORS: tuple[Indicator, ...] = (
    Indicator("human labour", "At which stages was people's labour used?"),
    Indicator("employer", "Who employs them?"),
    Indicator("geography", "How many of them live where?", figure=True),
    Indicator("wages", "What are they paid?", figure=True),
    Indicator("instructions", "What were they told to do?"),
    Indicator("protections", "What protects them: from harmful content, and as workers?"),
    Indicator("third parties", "Which third parties take part in it?"),
    Indicator("feedback mechanism", "How can feedback be given?"),
    Indicator("feedback summary", "What feedback was given, and how much?", figure=True),
    Indicator("government inquiries", "What have governments asked about it?"),
    Indicator("permitted uses", "What may it be used for?"),
    Indicator("prohibited uses", "What may it not be used for?"),
    Indicator("enforcement", "How is that enforced?"),
    Indicator("justification", "Is somebody who is refused told why?"),
)  # fmt: skip
"""After the Foundation Model Transparency Index (Bommasani et al. 2023): its indicators on data labour, feedback and usage policy, in our
words. Theirs are 100; these are the ones that feedback is about."""

HEADING = "Data labour and feedback"
NOT_DISCLOSED = "not disclosed"
_NOTHING = {"", "-", "–", "none", "n/a", "na", "unknown", "tbd", "todo", "?", NOT_DISCLOSED, "not stated", "not known", "not recorded"}


@dataclass(frozen=True)
class Transparency:
    """What a card discloses."""

    disclosed: dict[str, str]
    """Text by indicator."""
    missing: dict[str, str]
    """Why an indicator does not count, by indicator."""

    @property
    def score(self) -> float:
        """Share of the indicators that are disclosed."""
        return len(self.disclosed) / len(INDICATORS)

    def to_finding(self) -> Finding:
        """`transparency`: how many indicators the card discloses."""
        return Finding(
            code="transparency",
            title=f"The card discloses {len(self.disclosed)} of {len(INDICATORS)} indicators about data labour, feedback and use"
            + (f"; not {', '.join(self.missing)}." if self.missing else "."),
            estimate=self.score, n=len(INDICATORS), unit="share", verdict="notice" if self.missing else "ok",
            reason="From the text of the card alone; n is indicators. A count of facts: no interval. Whether what is disclosed is true is not looked at.",
            remedy="Say them in [disclosures] of the register." if self.missing else None,
            source="Bommasani et al. 2023 (Foundation Model Transparency Index)",
            details={"disclosed": self.disclosed, "missing": self.missing}, access="outside-the-box",
        )  # fmt: skip


def score_card(text: str) -> Transparency:
    """The transparency of a card, from its text alone; the same for the file on the disk."""
    rows = {cells[0].casefold(): cells[1] for cells in table_rows(text, HEADING) if len(cells) >= 2}
    disclosed: dict[str, str] = {}
    missing: dict[str, str] = {}
    for indicator in INDICATORS:
        said = rows.get(indicator.name)
        if said is None:
            missing[indicator.name] = "the card has no such row"
        elif said.casefold().strip(" .") in _NOTHING:
            missing[indicator.name] = "it says that it is not disclosed" if said else "the row is empty"
        elif indicator.figure and not re.search(r"\d", said):
            missing[indicator.name] = "it takes a number"
        else:
            disclosed[indicator.name] = said
    return Transparency(disclosed, missing)


def known_disclosures(feedback: Feedback) -> dict[str, str]:
    """What the feedback itself tells of the indicators; what it does not tell is for people to say."""
    frame, found = feedback.judgments, dict[str, str]()
    kinds = feedback.raters["kind"].drop_nulls().value_counts(sort=True).rows()
    if kinds:
        found["human labour"] = "judgments by " + ", ".join(f"{n:,} raters of kind {kind}" for kind, n in kinds)
    for name in ("country", "region", "location", "country_of_residence"):
        if (places := feedback.rater_profile(name).drop_nulls()).len():
            counts = sorted(places.value_counts().rows(), key=lambda row: (-row[1], row[0]))
            rest = sum(n for _, n in counts[10:])
            shown = [f"{place} {n:,}" for place, n in counts[:10]] + ([f"elsewhere {rest:,}"] if rest else [])
            found["geography"] = f"raters by {name}: {', '.join(shown)}; not known of {feedback.n_raters - places.len():,}"
            break
    if feedback.has("guideline_version"):
        found["instructions"] = "guideline " + ", ".join(frame["guideline_version"].drop_nulls().unique().sort().to_list())
    shapes = frame["kind"].cast(pl.String).value_counts().sort("kind").rows()
    interface = (
        f" in interface {', '.join(frame['ui_version'].drop_nulls().unique().sort().to_list())}" if feedback.has("ui_version") else ""
    )
    found["feedback mechanism"] = f"{', '.join(kind for kind, _ in shapes)}{interface}"
    when = ""
    if feedback.has("time"):
        first, last = frame.select(pl.col("time").min().alias("first"), pl.col("time").max().alias("last")).row(0)
        when = f", {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    counted = ", ".join(f"{n:,} of kind {kind}" for kind, n in shapes)
    people = f" by {feedback.n_raters:,} raters" if feedback.n_raters else ""
    found["feedback summary"] = f"{feedback.n_judgments:,} judgments{people} of {feedback.n_responses:,} responses ({counted}){when}"
    return found


def require_indicators(disclosures: Iterable[str]) -> None:
    """Nothing, where each is an indicator.

    Raises
    ------
    InvalidSetting
        With the first that is not, and the nearest that is.
    """
    known = [i.name for i in INDICATORS]
    for name in disclosures:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise InvalidSetting("disclosures", name, f"It is no indicator; the nearest is {near!r}.")


def disclosure_rows(disclosures: Mapping[str, str]) -> list[tuple[str, str]]:
    """(indicator, text) for the table of the card: all of them, also those not disclosed."""
    return [(i.name, disclosures.get(i.name) or NOT_DISCLOSED) for i in INDICATORS]


def question_rows(answers: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(topic, question, answer) for the card: all questions of the bank, open ones too."""
    return [(q.topic, q.text, answers.get(q.name) or "open") for q in QUESTIONS]


def table_rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table rows in a section of Markdown, as they were before they were escaped; the first row is the head.

    What stands in a fenced block is no heading and no row.
    """
    lines = [line for title, part in sections(text) if title == heading for line in unfenced(part)]
    rows = [line for line in lines if line.startswith("|") and not re.fullmatch(r"[|\s:-]*-[|\s:-]*", line)]
    return [[_plain(cell) for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def _plain(cell: str) -> str:
    """The text of a cell of Markdown, as it was before it was escaped."""
    text = re.sub(r"\\([\\`*_\[\]|#~$!])", r"\1", cell).replace("\u2060", "")
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


# ---------------------------------------------------------------------------------------------- redaction

Recipient = Literal["public", "peer", "regulator"]
RECIPIENTS: tuple[Recipient, ...] = ("public", "peer", "regulator")

DEFAULT_RULES = """# Who is shown what; everything that is not named here is redacted. * stands for one name, ** for all that is below.
[public]
show = [
  "head",
  "log.*.seq", "log.*.time", "log.*.kind", "log.*.previous", "log.*.hash",
  "log.charter.body.**", "log.data.body.fingerprint", "log.release.body.**", "log.incident.body.what", "log.incident.body.harm",
  "log.exclusion.body.n",
  "findings.code", "findings.title", "findings.estimate", "findings.low", "findings.high", "findings.n", "findings.unit", "findings.verdict",
  "findings.access", "findings.source",
]

[peer]
show = [
  "head",
  "log.*.seq", "log.*.time", "log.*.kind", "log.*.previous", "log.*.hash",
  "log.charter.**", "log.data.**", "log.release.**", "log.incident.**", "log.exclusion.**", "log.override.**", "log.near-miss.body.**",
  "findings.code", "findings.title", "findings.estimate", "findings.low", "findings.high", "findings.n", "findings.unit", "findings.verdict",
  "findings.access", "findings.source", "findings.reason", "findings.remedy",
]

[regulator]
show = [
  "head",
  "log.*.seq", "log.*.time", "log.*.kind", "log.*.previous", "log.*.hash",
  "log.charter.**", "log.data.**", "log.release.**", "log.incident.**", "log.exclusion.**", "log.override.**", "log.near-miss.**",
  "log.sign-off.**", "log.withdrawal.**", "log.electorate.actor", "log.electorate.body.poll", "log.electorate.body.options",
  "log.affordances.**", "log.note.**",
  "findings.**",
]
"""
"""The rules where none are given: the public has decisions, figures and hashes; peers also near-misses, exclusions and how figures were
made; a regulator also who acted and the tables behind the figures. Single ballots are shown to nobody, nor what a repair kept, which
may be of one. All have the hashes, so that nobody
is shown another log; the nonce of an entry is shown with the whole of it alone, and without it a hash says nothing."""


class InvalidRules(SeamarkError):
    """A file of redaction rules cannot be used."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}")


class Shown(BaseModel):
    """What one recipient is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    show: tuple[str, ...] = ()

    @field_validator("show")
    @classmethod
    def _paths(cls, show: tuple[str, ...]) -> tuple[str, ...]:
        for rule in show:
            names = rule.split(".")
            if not all(names) or "**" in names[:-1] or names == ["**"]:
                raise ValueError(f"{rule!r} is no path: names joined by dots, * for any one, ** at the end alone, and not ** by itself")
        return show


class Rules(BaseModel):
    """Redaction rules: what is shown, by recipient; a recipient who is left out is shown nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public: Shown = Shown()
    peer: Shown = Shown()
    regulator: Shown = Shown()

    @staticmethod
    def from_toml(path: str | Path) -> Rules:
        """Read a file of rules.

        Raises
        ------
        InvalidRules
            If it is no TOML, or a key or path is not one.
        """
        try:
            return Rules.parse(Path(path).read_text(encoding="utf-8"), source=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRules(str(path), str(error), "Rules are a TOML file with tables public, peer and regulator.") from None

    @staticmethod
    def parse(text: str, *, source: str = "redaction rules") -> Rules:
        """The rules in a text; see `from_toml`."""
        try:
            return Rules.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InvalidRules(source, str(error), "Rules are a TOML file with tables public, peer and regulator.") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                known = list(Shown.model_fields) if len(first["loc"]) > 1 else list(Rules.model_fields)
                near = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0)
                raise InvalidRules(source, f"unknown key {key}", f"The nearest known key is {near[0]}.") from None
            raise InvalidRules(source, f"{key} is {first.get('input')!r}", f"{first['msg']}.") from None


def redact(record: object, rules: Rules, recipient: Recipient) -> object:
    """A JSON value as this recipient is shown it."""
    if recipient not in RECIPIENTS:
        raise InvalidSetting("recipient", recipient, f"Use {', '.join(RECIPIENTS)}.")
    shown: Shown = {"public": rules.public, "peer": rules.peer, "regulator": rules.regulator}[recipient]
    return _redacted(record, [tuple(rule.split(".")) for rule in shown.show], _hidden_from(recipient))


def _hidden_from(recipient: Recipient) -> dict[str, str]:
    return {"redacted": f"not shown to {'the public' if recipient == 'public' else f'a {recipient}'}"}


def _redacted(value: object, rules: Sequence[tuple[str, ...]], hidden: dict[str, str]) -> object:
    """The value, with the rest of each rule that has led here: an empty rest shows the value if it has no parts, ** shows all of it."""
    if ("**",) in rules:
        return value
    if isinstance(value, list):
        items = [_redacted(item, rules, hidden) for item in cast("list[object]", value)]
        # of a list of which nothing is shown, not even the length
        return items if any(item != hidden for item in items) else hidden
    if isinstance(value, dict):
        parts = cast("dict[str, object]", value)
        found = {
            name: _redacted(part, [rule[1:] for rule in rules if rule and (rule[0] == name or rule[0] == "*")], hidden)
            for name, part in parts.items()
        }
        return found if any(part != hidden for part in found.values()) else hidden
    return value if () in rules else hidden


def report_for(
    recipient: Recipient, entries: Sequence[Entry], findings: Iterable[Finding] = (), *, rules: Rules | None = None
) -> dict[str, Any]:
    """The log and the findings as one recipient is shown them.

    Returns
    -------
    dict
        JSON-ready: recipient, head (of the whole log, so that what is shown can be told to be of it), log and findings, and
        `redacted`, how many parts are not shown.
    """
    chosen = rules or Rules.parse(DEFAULT_RULES)
    head = f"{len(entries)}:{entries[-1].hash}" if entries else f"0:{'0' * 64}"
    shown = {
        "recipient": recipient,
        "head": redact({"head": head}, chosen, recipient),
        # the kind of an entry is part of the path, so that rules can tell a charter from a near-miss
        "log": [_inside(redact({"log": {e.kind: e.model_dump(mode="json")}}, chosen, recipient), "log", e.kind) for e in entries],
        "findings": [_inside(redact({"findings": f.to_dict()}, chosen, recipient), "findings") for f in findings],
    }
    shown["head"] = _inside(shown["head"], "head")
    return shown | {"redacted": _count(shown, _hidden_from(recipient))}


def _inside(value: object, *names: str) -> object:
    """The part of a redacted record at this place; the mark of redaction where it, or what it is in, is redacted."""
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return cast("object", value)
        value = cast("dict[str, object]", value)[name]
    return value


def _count(value: object, hidden: dict[str, str]) -> int:
    if value == hidden:
        return 1
    if isinstance(value, dict):
        return sum(_count(part, hidden) for part in cast("dict[str, object]", value).values())
    return sum(_count(item, hidden) for item in cast("list[object]", value)) if isinstance(value, list) else 0
