"""Stakeholders, open questions and the clauses of the use policy, held against feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from seamark.governance.registers import (
    QUESTIONS,
    Clause,
    InvalidRegister,
    Register,
    check_clauses,
    check_questions,
    check_stakeholders,
    refusals,
)
from seamark.records import Feedback

TOML = """
[[stakeholders]]
name = "Nurses"
role = "affected"
interest = "advice that patients bring to the ward"
discipline = "nursing science"
groups = ["nurses"]

[[clauses]]
id = "weapons"
text = "No instructions for weapons."
labels = ["weapon", "explosive"]
tests = ["p1"]

[[criteria]]
axis = "helpful"
version = 1
definition = "Does what was asked."
authors = ["Ana"]

[answers]
"population.who" = "Nurses of two wards; patients were not asked."
"""


def register(text: str, folder: Path) -> Register:
    path = folder / "register.toml"
    path.write_text(text, encoding="utf-8")
    return Register.from_toml(path)


def feedback(*judgments: dict[str, Any]) -> Feedback:
    names = dict.fromkeys(name for j in judgments for name in j)
    return Feedback.from_columns({name: [j.get(name) for j in judgments] for name in names})


def labelled(prompt: str, response: str, label: str | None, act: str | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": "label", "label": label} if label else {"kind": "thumbs", "thumb": True}
    return said | {
        "prompt": f"text of {prompt}",
        "prompt_id": prompt,
        "texts": [response],
        "acts": [act] if act else None,
        "outcome": "answered",
    }


# ---------------------------------------------------------------------------------------------- the file


def test_a_register_is_read(tmp_path: Path) -> None:
    read = register(TOML, tmp_path)
    assert read.stakeholders[0].discipline == "nursing science"
    assert read.clauses[0].labels == ("weapon", "explosive")
    assert read.criterion("helpful") is not None
    assert read.criterion("harmless") is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[clause]]", r"unknown key clause\. The nearest known key is clauses"),
        ('[[clauses]]\nid = "a"\ntext = "b"\nlabel = []', r"unknown key clauses\.0\.label\. The nearest known key is labels"),
        ('[[clauses]]\nid = "a"\ntext = " "', r"clauses\.0\.text is ' '"),
        ('[[stakeholders]]\nname = "a"\nrole = "boss"\ninterest = "b"', r"stakeholders\.0\.role is 'boss'"),
        ('[[clauses]]\nid = "a"\ntext = "b"\n[[clauses]]\nid = "a"\ntext = "c"', r"clauses has 'a' more than once"),
        ('[[criteria]]\naxis = "a"\nversion = 1\ndefinition = "b"\nauthors = []', r"criteria\.0\.authors"),
        ('[answers]\n"population.whom" = "all"', r"'population\.whom', which is no question.*nearest is 'population\.who'"),
        ("[answers", r"register\.toml"),
    ],
)
def test_a_wrong_register_is_named_with_its_place(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRegister, match=named) as caught:
        register(text, tmp_path)
    assert "register.toml" in str(caught.value)


def test_a_definition_changes_only_by_a_new_version(tmp_path: Path) -> None:
    """N18: definitions are versioned: the latest holds, each has a hash of its own, and the same version twice is refused."""
    more = '\n[[criteria]]\naxis = "helpful"\nversion = {}\ndefinition = "Does what was meant."\nauthors = ["Ben"]\n'
    read = register(TOML + more.format(3), tmp_path)
    latest = read.criterion("helpful")
    assert latest is not None
    assert (latest.version, latest.definition) == (3, "Does what was meant.")
    assert len({c.hash for c in read.criteria}) == 2
    with pytest.raises(InvalidRegister, match=r"criteria has \('helpful', 1\) more than once"):
        register(TOML + more.format(1), tmp_path)


# ---------------------------------------------------------------------------------------------- R112


def test_R112_stakeholders_without_raters_are_named(tmp_path: Path) -> None:
    data = feedback(labelled("p1", "a", "weapon") | {"group": "doctors"})
    nobody = check_stakeholders(register(TOML, tmp_path), data)
    assert (nobody.verdict, nobody.estimate, nobody.n) == ("warning", 1.0, 1)
    assert "Nurses" in nobody.title
    heard = check_stakeholders(register(TOML.replace('groups = ["nurses"]', 'groups = ["nurses", "doctors"]'), tmp_path), data)
    assert (heard.verdict, heard.estimate) == ("ok", 0.0)
    informed = check_stakeholders(register(TOML.replace('"affected"', '"informed"'), tmp_path), data)
    assert informed.verdict == "notice"
    assert check_stakeholders(Register(), data).verdict == "warning"


def test_R112_open_questions_are_those_not_answered(tmp_path: Path) -> None:
    read = register(TOML, tmp_path)
    left = [q.name for q in read.open_questions()]
    assert left == [q.name for q in QUESTIONS if q.name != "population.who"]
    found = check_questions(read)
    assert (found.estimate, found.n, found.verdict) == (len(QUESTIONS) - 1, len(QUESTIONS), "notice")
    assert [row["name"] for row in found.details["open"]] == left
    assert check_questions(Register(answers={q.name: "yes" for q in QUESTIONS})).verdict == "ok"
    assert {q.topic for q in QUESTIONS} == {"collection context", "feedback type", "population", "expressed"}


# ---------------------------------------------------------------------------------------------- N14

POLICY = Register(
    clauses=(
        Clause(id="weapons", text="No weapons.", labels=("weapon", "explosive"), tests=("p1",)),
        Clause(id="privacy", text="No private data.", labels=("doxxing",), tests=("p9",)),
        Clause(id="law", text="Nothing unlawful."),
    )
)
REFUSED = (
    labelled("p1", "I cannot.", "explosive", "refuse"),  # by its own label
    labelled("p2", "I will not.", None, "refuse"),  # by the label of another response to the prompt
    labelled("p2", "Sure: her address is", "doxxing"),
    labelled("p3", "No.", None, "refuse"),  # by none
    labelled("p4", "Never.", "rude", "refuse"),  # its label is no clause's
    labelled("p5", "Fine.", "weapon"),  # no refusal
)


def test_N14_a_refusal_without_a_clause_is_found() -> None:
    data = feedback(*REFUSED)
    found = refusals(POLICY, data)
    texts = data.responses["text"].gather(found["response"]).to_list()
    assert dict(zip(texts, found["clauses"].to_list(), strict=True)) == {
        "I cannot.": ["weapons"],
        "I will not.": ["privacy"],
        "No.": [],
        "Never.": [],
    }
    finding = check_clauses(POLICY, data).get("clauses/refusals")
    assert finding is not None
    assert (finding.verdict, finding.estimate, finding.n) == ("warning", 0.5, 4)
    assert finding.low is not None
    assert finding.high is not None
    assert finding.low < 0.5 < finding.high
    assert finding.details["clauses"] == {"weapons": 1, "privacy": 1}
    assert len(finding.details["without"]) == 2


def test_N14_a_clause_without_a_test_is_found() -> None:
    finding = check_clauses(POLICY, feedback(*REFUSED)).get("clauses/tests")
    assert finding is not None
    assert (finding.verdict, finding.estimate, finding.n, finding.details["untested"]) == ("warning", 2.0, 3, ["privacy", "law"])
    tested = POLICY.model_copy(update={"clauses": POLICY.clauses[:1]})
    assert check_clauses(tested, feedback(*REFUSED))[1].verdict == "ok"


def test_N14_without_refusals_or_clauses_it_says_so() -> None:
    answered = feedback(labelled("p5", "Fine.", "weapon"))
    assert check_clauses(POLICY, answered)[0].verdict == "not_applicable"
    assert check_clauses(Register(), answered)[1].verdict == "not_applicable"
    every = check_clauses(Register(), feedback(*REFUSED))[0]
    assert (every.estimate, every.verdict) == (1.0, "warning")


def test_N14_refusals_agree_with_a_naive_count() -> None:
    """Random labels on random responses, against loops over the records."""
    import random

    rng = random.Random(3)
    rows = [
        labelled(f"p{rng.randrange(25)}", f"r{i}", rng.choice([None, "weapon", "doxxing", "rude"]), rng.choice([None, "refuse"]))
        for i in range(60)
    ]
    data = feedback(*rows)
    of_label = {label: clause.id for clause in POLICY.clauses for label in clause.labels}
    expected = {
        row["texts"][0]: sorted({of_label[r["label"]] for r in rows if r["prompt"] == row["prompt"] and r.get("label") in of_label})
        for row in rows
        if row["acts"] == ["refuse"]
    }
    found = refusals(POLICY, data)
    texts = data.responses["text"].gather(found["response"]).to_list()
    assert dict(zip(texts, found["clauses"].to_list(), strict=True)) == expected
    assert 5 < sum(not clauses for clauses in expected.values()) < len(expected)
    assert found.schema["clauses"] == pl.List(pl.String)
