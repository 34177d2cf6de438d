"""What must be stated, signed and true of a card before a reward is let out."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import seamark as sm
from seamark.aggregation import Charter, Electorate
from seamark.checks.findings import Finding, Findings
from seamark.errors import UnreadableSource
from seamark.governance import append, append_charter, read, verify
from seamark.governance.disclosure import INDICATORS, score_card
from seamark.governance.registers import QUESTIONS
from seamark.governance.release import (
    MANDATORY,
    Manifest,
    NotReleasable,
    artefacts,
    check_card,
    reasons_against,
    release,
    release_hash,
    seal_card,
)
from seamark.study import rewrite_report, run_study

REGISTER = """
[[stakeholders]]
name = "Nurses"
role = "affected"
interest = "advice that patients bring to the ward"

[[criteria]]
axis = "overall"
version = 1
definition = "Which answer would you rather be given?"
authors = ["Ana"]

[[claims]]
name = "honest"
text = "The model that wrote the responses is honest."
needs = "white-box"
evidence = ["agreement"]

[answers]
"population.who" = "People of a simulated society."

[disclosures]
wages = "0 euros: the raters are simulated"
"""


def get(found: Findings, code: str) -> Finding:
    finding = found.get(code)
    assert finding is not None, code
    return finding


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a signed charter and a register."""
    folder = tmp_path_factory.mktemp("release")
    sm.simulate(n_prompts=30, n_raters=15, n_judgments=900, careless=0.0, opposed=0.0, seed=2).feedback.to_jsonl(folder / "prefs.jsonl")
    (folder / "register.toml").write_text(REGISTER, encoding="utf-8")
    charter = Charter(title="Whose", authors=("Ana",), date="2026-01-01")
    run_study(folder / "prefs.jsonl", folder / "out", charter=charter, register=folder / "register.toml")
    return folder / "out"


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """The same, for one test; its claim, which is blocking on purpose, taken out of the findings and the card."""
    folder = Path(shutil.copytree(finished, tmp_path / "out"))
    found = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    found["findings"] = [f for f in found["findings"] if f["code"] != "claim/honest"]
    (folder / "findings.json").write_text(json.dumps(found), encoding="utf-8")
    rewrite_report(folder)
    seal_card(folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


# ---------------------------------------------------------------------------------------------- R64, R65


def test_R64_a_manifest_states_groups_weights_and_what_is_done_in_conflict(require: Callable[[str, str], Any]) -> None:
    society = sm.simulate(text=False, n_prompts=5, n_responses=6, n_raters=12, n_judgments=500, group_shares=(0.75, 0.25), seed=1)
    fitted = sm.fit(society.feedback, people=sm.Groups())
    default = Manifest.of(Charter(), fitted, society.feedback.fingerprint)
    assert default.groups == default.weights == {"group A": 0.75, "group B": 0.25}
    assert (default.conflicts, default.signed) == ("expected-utility", False)
    weighted = Manifest.of(
        Charter(authors=("Ana",), electorate=Electorate(weighting="named", weights={"group A": 0.25, "group B": 0.75})), fitted, "f"
    )
    assert (weighted.weights, weighted.signed) == ({"group A": 0.25, "group B": 0.75}, True)
    schema = require("jsonschema", "Install the extra dev.").Draft202012Validator(Manifest.model_json_schema())
    record = default.model_dump(mode="json")
    assert schema.is_valid(record)
    for field in ("groups", "weights", "conflicts"):
        for wrong in ({k: v for k, v in record.items() if k != field}, record | {field: type(record[field])()}):
            assert not schema.is_valid(wrong)
            with pytest.raises(ValidationError):
                Manifest.model_validate(wrong)


def test_R65_a_run_that_nobody_signed_is_not_releasable(study: Path, tmp_path: Path) -> None:
    assert reasons_against(study) == ()
    (study / "charter.toml").write_text(Charter().to_toml(), encoding="utf-8")
    assert any("unsigned: nobody answers" in reason for reason in reasons_against(study))
    with pytest.raises(NotReleasable, match="unsigned"):
        release(study, tmp_path / "log.jsonl", actor="Ana")
    assert not (tmp_path / "log.jsonl").exists()


def test_R65_a_default_that_is_not_written_out_is_not_releasable(study: Path) -> None:
    (study / "charter.toml").write_text('authors = ["Ana"]\n[electorate]\ngroups = "all"\n', encoding="utf-8")
    assert any("leaves to a default what is done where people conflict" in reason for reason in reasons_against(study))
    (study / "charter.toml").write_text('authors = ["Ana"]\n', encoding="utf-8")
    assert any("who counts and how much and what is done" in reason for reason in reasons_against(study))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: edit(f / "charter.toml", 'valid_until = ""', 'valid_until = "2020-01-01"'), "was valid until 2020-01-01"),
        (lambda f: (f / "charter.toml").unlink(), "charter cannot be read"),
        (lambda f: (f / "findings.json").unlink(), "no findings.json"),
        (lambda f: edit(f / "findings.json", '"verdict": "ok"', '"verdict": "blocking"'), "findings are blocking"),
        (lambda f: (f / "signal" / "train.jsonl").unlink(), "signal/train.jsonl is missing"),
    ],
)
def test_other_reasons_against_a_release(study: Path, change: Callable[[Path], None], said: str) -> None:
    change(study)
    assert said in "; ".join(reasons_against(study))


def test_a_release_is_signed_by_two_and_stands_in_the_log(study: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    charter = Charter.from_toml(study / "charter.toml")
    append_charter(log, charter, actor="Ana")
    with pytest.raises(NotReleasable, match="0 of 2 required people signed"):
        release(study, log, actor="Ana", n_sign_offs=2)
    for person in ("Ben", "Chi"):
        append(log, "sign-off", {"subject": charter.hash}, actor=person)
    entry = release(study, log, actor="Ana", n_sign_offs=2)
    assert verify(log).ok
    assert [e.kind for e in read(log)] == ["charter", "sign-off", "sign-off", "release"]
    assert entry.body["hash"] == release_hash(study)
    assert entry.body["artefacts"] == artefacts(study)
    assert entry.body["manifest"]["charter"] == charter.hash
    assert Manifest.model_validate(entry.body["manifest"]).signed
    with (study / "signal" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert release_hash(study) != entry.body["hash"]


def test_blocking_findings_take_an_override_that_is_logged(study: Path, tmp_path: Path) -> None:
    edit(study / "findings.json", '"verdict": "ok"', '"verdict": "blocking"')
    rewrite_report(study)
    log = tmp_path / "log.jsonl"
    with pytest.raises(NotReleasable, match="findings are blocking: coverage"):
        release(study, log, actor="Ana")
    release(study, log, actor="Ana", override="a pilot, for twelve people who know")
    assert [e.kind for e in read(log)] == ["charter", "override", "release"]
    assert read(log)[1].body == {"what": "blocking findings: coverage", "reason": "a pilot, for twelve people who know"}


# ---------------------------------------------------------------------------------------------- R68, R109


def test_R68_the_card_says_whose_values_by_what_rule_and_leaves_nothing_empty(study: Path) -> None:
    found = check_card(study)
    assert [f.verdict for f in found] == ["ok", "ok", "ok", "notice"]
    assert (get(found, "card/fields").n or 0) > 100
    card = (study / "card.md").read_text(encoding="utf-8")
    section = card.split("## Whose values, by what rule\n")[1].split("\n## ")[0]
    assert 'rule = "expected-utility"' in section
    assert 'authors = ["Ana"]' in section


@pytest.mark.parametrize("heading", MANDATORY)
def test_R68_a_mandatory_field_that_is_empty_or_gone_is_blocking(study: Path, heading: str) -> None:
    text = (study / "card.md").read_text(encoding="utf-8")
    before, after = text.split(f"## {heading}\n")
    rest = after.split("\n## ", 1)[1]
    for changed in (f"{before}## {heading}\n\n## {rest}", f"{before}## {rest}"):
        (study / "card.md").write_text(changed, encoding="utf-8")
        found = get(check_card(study), "card/fields")
        assert found.verdict == "blocking"
        assert heading in found.details["wrong"]


def test_R68_an_empty_cell_is_blocking(study: Path) -> None:
    edit(study / "card.md", "| source | ", "| source |  | ")
    assert get(check_card(study), "card/fields").details["wrong"] == ["a cell of The data (source)"]


def test_R109_every_number_of_the_card_is_in_an_artefact(study: Path) -> None:
    found = get(check_card(study), "card/numbers")
    assert (found.verdict, found.estimate) == ("ok", 0.0)
    assert (found.n or 0) > 200


def test_R109_each_artefact_is_linked_by_its_hash_and_deleting_or_changing_one_fails(study: Path) -> None:
    names = list(artefacts(study))
    assert {"findings.json", "charter.toml", "fit/fit.json", "fit/arrays.safetensors", "signal/train.jsonl", "study.json"} <= set(names)
    card = (study / "card.md").read_text(encoding="utf-8")
    for name in names:
        content = (study / name).read_bytes()
        assert f"| `{name}` | `{hashlib.sha256(content).hexdigest()}` |" in card
        (study / name).unlink()
        assert get(check_card(study), "card/artefacts").details["wrong"] == [f"{name} is missing"]
        (study / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert f"{name} was changed" in get(check_card(study), "card/artefacts").details["wrong"]
        (study / name).write_bytes(content)
    (study / "more.txt").write_text("x", encoding="utf-8")
    assert get(check_card(study), "card/artefacts").details["wrong"] == ["more.txt was not sealed"]


def test_R109_any_changed_figure_of_a_finding_is_seen(study: Path) -> None:
    """Each number in the table of findings in turn, its first digit changed."""
    text = (study / "card.md").read_text(encoding="utf-8")
    before, table = text.split("\n## Findings\n")
    table, rest = table.split("\n## ", 1)
    changed = 0
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    for row in rows[::5]:
        for token in list(re.finditer(r"(?<![\w.\-/])\d[\d.,]*\d(?![\w])", row.split("|", 3)[3]))[:4]:
            start = len(row) - len(row.split("|", 3)[3]) + token.start()
            digit = "7" if row[start] != "7" else "3"
            other = row[:start] + digit + row[start + 1 :]
            (study / "card.md").write_text(f"{before}\n## Findings\n{table.replace(row, other)}\n## {rest}", encoding="utf-8")
            assert get(check_card(study), "card/numbers").verdict == "blocking", other
            changed += 1
    assert changed > 12


def test_R109_a_number_from_nowhere_is_seen(study: Path) -> None:
    edit(study / "card.md", "## Intended use\n", "## Intended use\n\nIt is right in 98.7654% of cases.\n")
    found = get(check_card(study), "card/numbers")
    assert found.verdict == "blocking"
    assert found.details["wrong"] == ["98.7654 (It is right in 98.7654% of cases.)"]


def test_sealing_twice_changes_nothing(study: Path) -> None:
    once = (study / "card.md").read_text(encoding="utf-8")
    assert seal_card(study) == once == (study / "card.md").read_text(encoding="utf-8")
    with pytest.raises(UnreadableSource, match=r"no readable card\.md"):
        seal_card(study / "fit")


# ---------------------------------------------------------------------------------------------- R110, R112: what the card discloses


def test_R110_the_score_is_that_of_the_file_on_the_disk(study: Path) -> None:
    text = (study / "card.md").read_text(encoding="utf-8")
    found = score_card(text)
    assert found.disclosed["wages"] == "0 euros: the raters are simulated"
    assert found.disclosed["feedback summary"].startswith("900 judgments by 15 raters")
    assert 0 < found.score < 1
    # nothing but the card: the score is the same when everything else is gone
    for path in study.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink() if path.name != "card.md" else None
    assert score_card((study / "card.md").read_text(encoding="utf-8")) == found
    assert get(check_card(study), "transparency").estimate == found.score
    assert {*found.disclosed, *found.missing} == {i.name for i in INDICATORS}


def test_R112_open_questions_are_listed_in_the_card(study: Path) -> None:
    section = (study / "card.md").read_text(encoding="utf-8").split("## Open questions\n")[1].split("\n## ")[0]
    assert section.count("**open**") == len(QUESTIONS) - 1
    assert "| People of a simulated society. |" in section
    for question in QUESTIONS:
        assert question.text in section


def test_a_study_holds_the_register_against_the_feedback(finished: Path) -> None:
    found = {f["code"]: f for f in json.loads((finished / "findings.json").read_text(encoding="utf-8"))["findings"]}
    assert found["criteria/undefined"]["verdict"] == "ok"
    assert found["stakeholders"]["verdict"] == "warning"
    assert found["open-questions"]["estimate"] == len(QUESTIONS) - 1
    assert found["claim/honest"]["verdict"] == "blocking"
    assert {f["access"] for f in found.values()} <= {"outside-the-box", "white-box"}
    assert found["signal"]["access"] == "white-box"
