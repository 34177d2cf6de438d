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
from seamark.aggregation.charter import Floors
from seamark.checks.findings import Finding, Findings
from seamark.errors import UnreadableSource
from seamark.governance import append, append_charter, export_audit, read, verify, verify_export
from seamark.governance.disclosure import INDICATORS, score_card
from seamark.governance.registers import QUESTIONS
from seamark.governance.release import (
    MANDATORY,
    Manifest,
    NotReleasable,
    artefacts,
    check_card,
    check_release,
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

[[claims]]
name = "trainable"
text = "There is a signal to train on."
needs = "white-box"
evidence = ["signal"]

[answers]
"population.who" = "People of a simulated society."

[disclosures]
wages = "0 euros: the raters are simulated"
"feedback summary" = "1,000,000 judgments"
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
    charter = Charter(title="Whose", authors=("Ana",), date="2026-01-01", rationale="We met and chose this.")
    run_study(folder / "prefs.jsonl", folder / "out", charter=charter, register=folder / "register.toml")
    return folder / "out"


@pytest.fixture(scope="module")
def releasable(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same; its claim, which is blocking on purpose, taken out of the findings and the card."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("releasable") / "out"))
    found = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    found["findings"] = [f for f in found["findings"] if f["code"] != "claim/honest"]
    (folder / "findings.json").write_text(json.dumps(found), encoding="utf-8")
    rewrite_report(folder)
    seal_card(folder)
    return folder


@pytest.fixture
def study(releasable: Path, tmp_path: Path) -> Path:
    """The same, for one test."""
    return Path(shutil.copytree(releasable, tmp_path / "out"))


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
        Charter(
            authors=("Ana",),
            date="2026-01-01",
            rationale="We met and chose this.",
            electorate=Electorate(weighting="named", weights={"group A": 0.25, "group B": 0.75}),
        ),
        fitted,
        "f",
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
    assert any("is unsigned (0 of 1 author; no date; " in reason for reason in reasons_against(study))
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
    assert entry.body["card"] == hashlib.sha256((study / "card.md").read_bytes()).hexdigest()
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


# ---------------------------------------------------------------------------------------------- what was made under what, and is still there


def test_R65_a_signature_put_under_a_finished_study_does_not_release_it(study: Path, tmp_path: Path) -> None:
    """The signal was made under the charter of study.json: another beside it, however well signed, says nothing of it."""
    other = Charter(
        title="Whose", authors=("Ana",), date="2026-01-01", rationale="We met and chose this.", electorate=Electorate(weighting="equal")
    )
    (study / "charter.toml").write_text(other.to_toml(), encoding="utf-8")
    rewrite_report(study)
    assert [r for r in reasons_against(study) if "run the study again under it" in r]
    with pytest.raises(NotReleasable, match="made under another charter"):
        release(study, tmp_path / "log.jsonl", actor="Ana")
    assert not (tmp_path / "log.jsonl").exists()


def test_R65_a_comment_in_the_charter_is_no_other_charter(study: Path) -> None:
    edit(study / "charter.toml", "version =", "# read by Ana on Monday\nversion =")
    assert not [r for r in reasons_against(study) if "another charter" in r]


@pytest.mark.parametrize(("gone", "said"), [("fit", "nothing was fitted"), ("signal", "it has no signal")])
def test_R109_what_is_gone_is_not_released(study: Path, tmp_path: Path, gone: str, said: str) -> None:
    """Neither where the card was sealed with it, nor where the card was drawn and sealed anew without it."""
    shutil.rmtree(study / gone)
    with pytest.raises(NotReleasable, match=r"artefacts are not as sealed.*is missing"):
        release(study, tmp_path / "log.jsonl", actor="Ana")
    rewrite_report(study)
    with pytest.raises(NotReleasable, match=said):
        release(study, tmp_path / "log.jsonl", actor="Ana")
    assert not (tmp_path / "log.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("findings.json", '{"findings": [{"code": 3, "title": 4}]}'),
        ("findings.json", "[]"),
        ("study.json", "[]"),
        ("fit/fit.json", "{}"),
        ("card.md", "# Card\n\n## Artefacts\n\n| file | hash |\n|---|---|\n| `findings.json` |\n"),
    ],
)
def test_what_cannot_be_read_is_a_reason_and_no_crash(study: Path, tmp_path: Path, name: str, content: str) -> None:
    (study / name).write_text(content, encoding="utf-8")
    with pytest.raises(NotReleasable):
        release(study, tmp_path / "log.jsonl", actor="Ana", override="it is urgent")
    assert not (tmp_path / "log.jsonl").exists()


def _row(study: Path, code: str) -> list[str]:
    line = next(x for x in (study / "card.md").read_text(encoding="utf-8").splitlines() if x.startswith("| ") and f"| {code} |" in x)
    return line.split(" | ")


@pytest.mark.parametrize("which", ["verdict", "estimate", "interval", "n", "gone"])
def test_R109_each_cell_of_a_finding_is_its_own(study: Path, which: str) -> None:
    """Also where the cell holds another number of the same row, or another verdict."""
    row = _row(study, "accuracy")
    low, n = row[4].strip("\\[]").split(",")[0], row[5].removesuffix(" |")
    changed = {
        "verdict": ["| blocking", *row[1:]], "estimate": [*row[:3], f"{low}%", *row[4:]], "interval": [*row[:4], f"\\[{low}, {low}\\]", row[5]],
        "n": [*row[:5], f"{n}0 |"], "gone": [],
    }[which]  # fmt: skip
    edit(study / "card.md", " | ".join(row) + "\n", " | ".join(changed) + "\n" if changed else "")
    found = get(check_card(study), "card/numbers")
    assert (found.verdict, found.details["wrong"]) == ("blocking", ["the row of accuracy"])


def test_R109_a_changed_word_is_seen_against_the_log(study: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert get(check_release(study, ()), "card/released").verdict == "blocking"
    release(study, log, actor="Ana")
    assert get(check_release(study, read(log)), "card/released").verdict == "ok"
    edit(study / "card.md", "**Not for** prompts", "**For** prompts")
    assert not check_card(study).blocking
    assert get(check_release(study, read(log)), "card/released").details["wrong"] == ["the card"]
    (study / "more.txt").write_text("x", encoding="utf-8")
    assert get(check_release(study, read(log)), "card/released").details["wrong"] == ["the files", "the card"]


def test_a_heading_in_a_fence_is_no_heading(study: Path) -> None:
    edit(study / "card.md", "toml\n", "toml\n## Artefacts\n## Findings\n")
    sealed = seal_card(study)
    assert sealed.count("## Open questions\n") == 1
    assert seal_card(study) == sealed
    assert not check_card(study).blocking


def test_a_charter_with_a_population_is_released_with_it(tmp_path: Path) -> None:
    society = sm.simulate(n_prompts=30, n_raters=20, n_judgments=900, groups=2, careless=0.0, opposed=0.0, seed=2)
    society.feedback.to_jsonl(tmp_path / "prefs.jsonl")
    (tmp_path / "population.csv").write_text("group,share\ngroup A,0.5\ngroup B,0.5\n", encoding="utf-8")
    electorate = Electorate(weighting="target", target="population.csv")
    (tmp_path / "charter.toml").write_text(
        Charter(title="Whose", authors=("Ana",), date="2026-01-01", rationale="We met and chose this.", electorate=electorate).to_toml(),
        encoding="utf-8",
    )
    charter = Charter.from_toml(tmp_path / "charter.toml")
    run_study(tmp_path / "prefs.jsonl", tmp_path / "out", charter=charter, people=sm.Groups())
    entry = release(tmp_path / "out", tmp_path / "log.jsonl", actor="Ana", override="a trial")
    assert entry.body["manifest"]["weights"] == pytest.approx({"group A": 0.5, "group B": 0.5})
    assert "population.csv" in entry.body["artefacts"]
    assert read(tmp_path / "log.jsonl")[0].body["target"]["text"].startswith("group,share\n")
    export_audit(tmp_path / "log.jsonl", tmp_path / "audit", access=["outside-the-box"])
    assert verify_export(tmp_path / "audit") == ()
    (tmp_path / "out" / "population.csv").write_text("group,share\ngroup A,0.9\ngroup B,0.1\n", encoding="utf-8")
    assert [r for r in reasons_against(tmp_path / "out") if "another charter" in r]
    (tmp_path / "out" / "population.csv").unlink()
    assert [r for r in reasons_against(tmp_path / "out") if "no such population file" in r]


def test_R64_what_else_decides_in_conflict_stands_beside_the_rule() -> None:
    society = sm.simulate(text=False, n_prompts=5, n_responses=6, n_raters=12, n_judgments=500, seed=1)
    fitted = sm.fit(society.feedback, people=sm.Groups())
    for charter, said in (
        (Charter(rule="quantile", share=0.1), "quantile (share 0.1)"),
        (Charter(rule="mixture", parts={"maximin": 0.25, "borda": 0.75}), "mixture (maximin 0.25, borda 0.75)"),
        (Charter(floors=Floors(groups={"group A": -1.5})), "expected-utility (floor of group A -1.5)"),
    ):
        assert Manifest.of(charter, fitted, "f").conflicts == said


def test_a_claim_may_rest_on_the_signal(finished: Path) -> None:
    found = {f["code"]: f for f in json.loads((finished / "findings.json").read_text(encoding="utf-8"))["findings"]}
    assert found["claim/trainable"]["verdict"] == "ok"


def test_what_was_measured_is_not_talked_over(finished: Path) -> None:
    said = json.loads((finished / "study.json").read_text(encoding="utf-8"))["disclosures"]["feedback summary"]
    assert said.startswith("900 judgments by 15 raters")
    assert said.endswith("; stated: 1,000,000 judgments")
