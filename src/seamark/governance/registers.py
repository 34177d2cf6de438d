"""Who is concerned, what is open, what is forbidden and what words mean: one file that people keep, and what is wrong with it.

A register is a TOML file (`Register.from_toml`) of stakeholders, answers to the question bank, clauses of the use policy, definitions
of criteria, principles of a constitution and claims. `check_stakeholders`, `check_questions` and `check_clauses` hold it against the feedback;
`seamark.governance.constitution` does so for criteria and principles.
"""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from seamark.checks.comparisons import codes_of
from seamark.checks.findings import Access, Finding, Findings
from seamark.errors import SeamarkError
from seamark.governance.log import hash_of
from seamark.intervals import clustered_share
from seamark.records import Feedback

_Form = TypeVar("_Form", bound=BaseModel)
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class InvalidRegister(SeamarkError):
    """A register file cannot be used."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}")


@dataclass(frozen=True)
class Question:
    """A question that whoever releases a reward should be able to answer."""

    name: str
    """Word by which it is answered in the register: topic.what."""
    text: str

    @property
    def topic(self) -> str:
        return self.name.partition(".")[0].replace("-", " ")


QUESTIONS: tuple[Question, ...] = (
    Question("collection-context.raters", "Were the raters professionals, volunteers or users, and how were they found?"),
    Question("collection-context.repetition", "Does answering again and again change what people prefer, and was it looked at?"),
    Question("collection-context.interface", "What does the interface make easy or hard to say, and what did that do to the answers?"),
    Question("collection-context.own-values", "Were raters asked for their own values, or to apply instructions? Which instructions?"),
    Question("feedback-type.pairwise", "Is a choice between two responses enough for what is to be learned, or is something lost?"),
    Question("feedback-type.axes", "Which axes were asked about apart, and what was put into one answer?"),
    Question("population.who", "Whose preferences are these, and who is affected without having been asked?"),
    Question("population.minimum", "How many people represent each group, and how many would it take?"),
    Question("population.disagreement", "Is disagreement taken as noise or as a signal, and who decided that?"),
    Question("expressed.intended", "Are the preferences that were intended those that the model shows: by specification, instruction and behaviour?"),
)  # fmt: skip
"""The question bank. Source: Lambert, Gilbert & Zick 2023 (arXiv 2310.13595), open questions on RLHF's data and its use."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stakeholder(_Part):
    """Somebody who has a stake in what the reward makes of a model."""

    name: Text
    role: Literal["decides", "consulted", "informed", "affected"]
    """What part they have in the decision: affected is none."""
    interest: Text
    discipline: str = ""
    """Field of knowledge that they bring, where that is why they are here."""
    groups: tuple[Text, ...] = ()
    """Groups of raters who speak for them."""


class Clause(_Part):
    """One clause of the use policy."""

    id: Text
    text: Text
    labels: tuple[Text, ...] = ()
    """Labels that raters give to what it is about."""
    tests: tuple[Text, ...] = ()
    """Names of prompts that try it."""


class Criterion(_Part):
    """What raters were asked to judge by, in words, at one version."""

    axis: Text
    """The axis of the judgments; overall for those that name none."""
    version: Annotated[int, Field(ge=1)]
    definition: Text
    authors: Annotated[tuple[Text, ...], Field(min_length=1)]
    date: str = ""
    guidelines: tuple[Text, ...] = ()
    """Versions of the guideline in which raters were shown this definition."""

    @property
    def hash(self) -> str:
        return hash_of(self.model_dump(mode="json"))


class Principle(_Part):
    """One principle of a constitution."""

    id: Text
    """Name of the response that raters voted on, where they did."""
    text: Text
    authors: Annotated[tuple[Text, ...], Field(min_length=1)]
    date: str = ""


class Claim(_Part):
    """Something that is said of the reward or the model, and what it rests on."""

    name: Text
    text: Text
    needs: Access
    """The access without which nobody can know it."""
    evidence: tuple[Text, ...] = ()
    """Codes of findings."""
    safety: bool = False
    """Whether it says that something does not happen, or seldom: that takes a scope, and a campaign among the evidence."""
    scope: str = ""
    """Of what it is said: release, uses, languages, users. Empty: of nothing in particular."""


class Register(_Part):
    """All of it."""

    stakeholders: tuple[Stakeholder, ...] = ()
    clauses: tuple[Clause, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    principles: tuple[Principle, ...] = ()
    claims: tuple[Claim, ...] = ()
    answers: dict[str, Text] = Field(default_factory=dict)
    """Answers to questions of the bank, by name."""
    disclosures: dict[str, Text] = Field(default_factory=dict)
    """What is said for indicators of transparency, by name (see `seamark.governance.disclosure`)."""

    @model_validator(mode="after")
    def _each_once(self) -> Register:
        keys: dict[str, list[Any]] = {
            "stakeholders": [s.name for s in self.stakeholders],
            "clauses": [c.id for c in self.clauses],
            "criteria": [(c.axis, c.version) for c in self.criteria],
            "principles": [p.id for p in self.principles],
            "claims": [c.name for c in self.claims],
        }
        for part, names in keys.items():
            if twice := [name for name, n in Counter(names).items() if n > 1]:
                raise ValueError(f"{part} has {twice[0]!r} more than once; a new text takes a new name or version")
        known = [q.name for q in QUESTIONS]
        for name in self.answers:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
                raise ValueError(f"answers has {name!r}, which is no question of the bank; the nearest is {near!r}")
        return self

    @staticmethod
    def from_toml(path: str | Path) -> Register:
        """Read a register.

        Raises
        ------
        InvalidRegister
            If it is no TOML, or a key or value is not known; an unknown key names the nearest known one.
        """
        return read_form(
            path, Register, wrong=InvalidRegister, what="A register is a TOML file with tables such as [[clauses]] and [answers].",
            parts=_PARTS,
        )  # fmt: skip

    def criterion(self, axis: str) -> Criterion | None:
        """The definition of an axis, at its latest version; None where there is none."""
        return max((c for c in self.criteria if c.axis == axis), key=lambda c: c.version, default=None)

    def open_questions(self) -> tuple[Question, ...]:
        """Questions of the bank that nobody has answered."""
        return tuple(q for q in QUESTIONS if q.name not in self.answers)


_PARTS: dict[str, type[BaseModel]] = {
    "stakeholders": Stakeholder, "clauses": Clause, "criteria": Criterion, "principles": Principle, "claims": Claim,
}  # fmt: skip


def read_form(
    path: str | Path,
    form: type[_Form],
    *,
    wrong: Callable[[str, str, str], SeamarkError],
    what: str,
    parts: Mapping[str, type[BaseModel]] | None = None,
) -> _Form:
    """A TOML file that people fill in, as `form`; any flaw is one error that says where it is and what to do.

    Parameters
    ----------
    wrong : makes the error of a path, a problem and a remedy.
    what : the kind of file it is, in words, said where it is no TOML.
    parts : form of each table that it may hold; an unknown key names the nearest one of its table.
    """
    try:
        record = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte-order mark
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise wrong(str(path), str(error), what) from None
    try:
        return form.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        if first["type"] == "extra_forbidden":
            part = (parts or {}).get(str(first["loc"][0]), form) if len(first["loc"]) > 1 else form
            near = difflib.get_close_matches(key.rpartition(".")[2], list(part.model_fields), n=1, cutoff=0)
            raise wrong(str(path), f"unknown key {key}", f"The nearest known key is {near[0]}.") from None
        if first["type"] == "value_error":
            raise wrong(str(path), first["msg"].removeprefix("Value error, "), "Change one of them.") from None
        raise wrong(str(path), f"{key} is {first.get('input')!r}", f"{first['msg']}.") from None


# ---------------------------------------------------------------------------------------------- stakeholders and questions


def check_stakeholders(register: Register, feedback: Feedback) -> Finding:
    """Whether those whom it concerns were asked: stakeholders that no group of raters in the feedback speaks for."""
    if not register.stakeholders:
        return Finding(
            code="stakeholders", title="Nobody wrote down whom this reward concerns.", estimate=0.0, n=0, unit="count", verdict="warning",
            reason="n is stakeholders in the register; a count of facts: no interval.",
            remedy="Name those who decide, are consulted, are informed and are affected, in [[stakeholders]] of the register.", access="outside-the-box",
        )  # fmt: skip
    present = set(feedback.judgments["group"].drop_nulls().unique().to_list())
    unheard = [s for s in register.stakeholders if not present & set(s.groups)]
    affected = [s.name for s in unheard if s.role == "affected"]
    n = len(register.stakeholders)
    title = (
        f"{len(unheard)} of {n} stakeholders have no raters in this feedback: {_some([s.name for s in unheard])}."
        if unheard
        else f"Raters in this feedback speak for each of the {n} stakeholders."
    )
    return Finding(
        code="stakeholders", title=title, estimate=float(len(unheard)), n=n, unit="count", verdict="warning" if affected else "notice" if unheard else "ok",
        reason="Stakeholders none of whose `groups` gave a judgment; n is stakeholders. A count of facts: no interval.",
        remedy=f"Ask people who speak for {_some(affected or [s.name for s in unheard])}, or say in the charter why not." if unheard else None,
        details={"stakeholders": [s.model_dump(mode="json") | {"heard": s not in unheard} for s in register.stakeholders]}, access="outside-the-box",
    )  # fmt: skip


def check_questions(register: Register) -> Finding:
    """Which questions of the bank are open."""
    unanswered = register.open_questions()
    return Finding(
        code="open-questions",
        title=f"{len(unanswered)} of {len(QUESTIONS)} questions about where these preferences come from are open"
        + (f", about {_some(list(dict.fromkeys(q.topic for q in unanswered)))}." if unanswered else "."),
        estimate=float(len(unanswered)), n=len(QUESTIONS), unit="count", verdict="notice" if unanswered else "ok",
        reason="n is questions; a count of facts: no interval. Whether an answer is a good one is not looked at.",
        remedy="Answer them in [answers] of the register; the card lists those that stay open." if unanswered else None,
        source="Lambert, Gilbert & Zick 2023",
        details={"open": [{"name": q.name, "text": q.text} for q in unanswered]}, access="outside-the-box",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- the use policy


def check_clauses(register: Register, feedback: Feedback) -> Findings:
    """Whether refusals and the use policy belong together.

    A refusal (a response whose act is refuse) belongs to a clause where a rater gave it, or another response to the same prompt, one of
    the clause's labels. A clause is tested where one of the prompts that it names is in the feedback.

    Returns
    -------
    `clauses/refusals`: the share of refusals to which no clause belongs, with an interval by prompt; `clauses/tests`: clauses without
    a test. Both are warnings where they are above 0.

    Source: Klyman 2024 (acceptable use policies: 3 of 10 developers say how theirs are enforced, 2 of 10 justify it to users).
    """
    return Findings((_check_refusals(register, feedback), _check_tests(register, feedback)))


def refusals(register: Register, feedback: Feedback) -> pl.DataFrame:
    """One row per refusal: response (code), prompt (code, null where not known), and the clauses that belong to it (list of ids)."""
    of_label = [(label, clause.id) for clause in register.clauses for label in clause.labels]
    known = pl.DataFrame(of_label, schema={"label": pl.String, "clause": pl.String}, orient="row")
    given = (
        feedback.judgments.filter(pl.col("label").is_not_null())
        .select("label", pl.col("responses").list.first().alias("response"))
        .join(known, on="label")
    )
    responses = feedback.responses.with_row_index("response")
    given = given.join(responses.select("response", "prompt"), on="response", how="left")
    clauses = pl.col("clause").unique().sort()
    by_response = given.group_by("response").agg(clauses.alias("own"))
    by_prompt = given.drop_nulls("prompt").group_by("prompt").agg(clauses.alias("shared"))
    found = responses.filter(pl.col("act") == "refuse").select("response", "prompt")
    found = found.join(by_response, on="response", how="left").join(by_prompt, on="prompt", how="left").sort("response")
    empty = pl.lit([], dtype=pl.List(pl.String))
    both = pl.concat_list(pl.col("own").fill_null(empty), pl.col("shared").fill_null(empty)).list.unique().list.sort()
    return found.select("response", "prompt", both.alias("clauses"))


def _check_refusals(register: Register, feedback: Feedback) -> Finding:
    found = refusals(register, feedback)
    if not found.height:
        return Finding.not_applicable(
            "clauses/refusals", "Whether refusals rest on the use policy", "No response is marked as a refusal (act = refuse)."
        )
    without = found["clauses"].list.len().to_numpy() == 0
    interval, how = clustered_share(without.astype(np.float64), {"prompt": codes_of(found["prompt"])})
    names = feedback.responses["name"].fill_null(feedback.responses["id"]).gather(found["response"].filter(pl.Series(without)))
    return Finding.of(
        interval, code="clauses/refusals", unit="share", verdict="warning" if without.any() else "ok",
        title=f"{int(without.sum()):,} of {found.height:,} refusals rest on no clause of the use policy"
        + (f": {_some(names.to_list())}." if without.any() else "."),
        reason=f"n is refusals; {how}. A clause belongs to a refusal by the labels that raters gave it, or another response to its prompt.",
        remedy="Write the clause that they rest on, label them, or answer instead of refusing." if without.any() else None,
        source="Klyman 2024", details={"without": names.to_list(), "clauses": dict(Counter(c for row in found["clauses"] for c in row))},
    )  # fmt: skip


def _check_tests(register: Register, feedback: Feedback) -> Finding:
    if not register.clauses:
        return Finding.not_applicable(
            "clauses/tests", "Whether the clauses of the use policy are tested", "The register has no [[clauses]]."
        )
    present = set(feedback.prompts["name"].drop_nulls().to_list())
    untested = [c.id for c in register.clauses if not present & set(c.tests)]
    n = len(register.clauses)
    return Finding(
        code="clauses/tests",
        title=f"{len(untested)} of {n} clauses of the use policy have no test in this feedback" + (f": {_some(untested)}." if untested else "."),
        estimate=float(len(untested)), n=n, unit="count", verdict="warning" if untested else "ok",
        reason="n is clauses; a clause is tested where a prompt that it names in `tests` was judged. A count of facts: no interval.",
        remedy="Collect judgments on prompts that try these clauses, and name the prompts in `tests`." if untested else None,
        source="Klyman 2024", details={"untested": untested}, access="outside-the-box",
    )  # fmt: skip


def _some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
