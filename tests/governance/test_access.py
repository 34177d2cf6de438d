"""What was looked at bounds what may be claimed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import typer

import seamark as sm
from seamark.aggregation import Charter
from seamark.checks.findings import ACCESS, Access, Finding, Findings
from seamark.cli import main
from seamark.cli.printing import finish
from seamark.errors import InvalidSetting
from seamark.governance.access import ALLOWS, check_claims, claims_table, export_claims, grants
from seamark.governance.campaigns import Attempt, Campaign, check_campaign
from seamark.governance.log import append
from seamark.governance.registers import Claim, InvalidRegister, Register

FINDINGS = Findings(
    (
        Finding(code="agreement", title="Raters agree.", estimate=0.6, access="outside-the-box"),
        Finding(code="accuracy", title="It predicts 70%.", estimate=0.7, access="black-box"),
        Finding(code="convergence", title="It converged.", estimate=1.0, access="white-box"),
        Finding(code="old", title="From before.", estimate=1.0),
        Finding(code="direction", title="Labels are reversed.", verdict="blocking", access="white-box"),
        Finding.not_applicable("calibration", "Calibration.", "Too little data."),
    )
)


def test_N33_the_ladder_and_what_stands_beside_it() -> None:
    order: list[Access] = ["black-box", "grey-box", "white-box"]
    for had, needed in itertools.product(order, order):
        assert grants(had, needed) == (order.index(had) >= order.index(needed))
    for step in order:
        assert not grants(step, "outside-the-box")
        assert not grants("outside-the-box", step)
    assert grants("outside-the-box", "outside-the-box")
    assert not any(grants(None, needed) for needed in ACCESS)
    assert set(ALLOWS) == set(ACCESS)


@pytest.mark.parametrize(
    ("needs", "evidence", "verdict", "said"),
    [
        ("black-box", ("accuracy",), "ok", "has evidence with black-box access."),
        ("white-box", ("accuracy",), "blocking", "accuracy had black-box access"),
        ("grey-box", ("accuracy", "convergence"), "ok", "has evidence"),
        ("black-box", ("agreement",), "blocking", "agreement had outside-the-box access"),
        ("outside-the-box", ("agreement",), "ok", "has evidence"),
        ("outside-the-box", ("convergence",), "blocking", "convergence had white-box access"),
        ("black-box", ("old",), "blocking", "old had no stated access"),
        ("black-box", ("calibration",), "blocking", "calibration could not be computed"),
        ("black-box", ("direction",), "blocking", "direction is blocking itself"),
        ("black-box", ("accuracy", "direction"), "blocking", "direction is blocking itself"),
        ("black-box", ("absent",), "blocking", "absent was not computed"),
        ("black-box", (), "blocking", "no finding is named for it"),
    ],
)
def test_N33_a_claim_that_needs_more_access_than_its_evidence_had_is_a_finding(
    needs: Access, evidence: tuple[str, ...], verdict: str, said: str
) -> None:
    (found,) = check_claims([Claim(name="works", text="It works.", needs=needs, evidence=evidence)], FINDINGS)
    assert (found.code, found.verdict) == ("claim/works", verdict)
    assert said in found.title
    assert [row["code"] for row in found.details["evidence"]] == list(evidence)


def test_N33_claim_evidence_and_gap_stand_side_by_side() -> None:
    (found,) = check_claims([Claim(name="a", text="A", needs="white-box", evidence=("accuracy", "convergence"))], FINDINGS)
    assert found.details["evidence"] == [
        {"code": "accuracy", "shows": "It predicts 70%.", "access": "black-box", "gap": "had black-box access"},
        {"code": "convergence", "shows": "It converged.", "access": "white-box", "gap": ""},
    ]


def test_N5_the_gap_is_not_empty_where_nothing_was_tested(tmp_path: Path) -> None:
    """Claimed guarantee, what the tool can show, and the gap: empty only where the finding is there and had the access."""
    claims = [
        Claim(name="tested", text="It predicts 70%.", needs="black-box", evidence=("accuracy",)),
        Claim(name="nothing", text="It is fair.", needs="outside-the-box"),
        Claim(name="absent", text="It never refuses.", needs="black-box", evidence=("refusals", "accuracy")),
        Claim(name="open", text="It is calibrated.", needs="black-box", evidence=("calibration",)),
    ]
    table = claims_table(claims, FINDINGS)
    assert table.columns == ["claim", "guarantee", "scope", "tool", "shows", "can_show", "stands", "gap"]
    rows = {(r["claim"], r["tool"]): r for r in table.to_dicts()}
    assert rows["tested", "accuracy"]["gap"] == ""
    assert rows["tested", "accuracy"]["can_show"] == ALLOWS["black-box"]
    assert rows["nothing", ""]["gap"] == "no finding is named for it"
    assert "refusals was not computed" in rows["absent", "refusals"]["gap"]
    assert rows["open", "calibration"]["gap"] == "calibration could not be computed"
    tested = {f.code for f in FINDINGS if f.verdict != "not_applicable"}
    assert all(r["gap"] for r in table.to_dicts() if r["tool"] not in tested)
    with pytest.raises(InvalidSetting, match="claims is 'nothing'"):
        export_claims(claims, FINDINGS, tmp_path / "claims.csv")
    assert not (tmp_path / "claims.csv").exists()
    export_claims(claims[:1], FINDINGS, tmp_path / "claims.csv")
    assert "It predicts 70%." in (tmp_path / "claims.csv").read_text(encoding="utf-8")


def campaign(**how: Any) -> Findings:
    """What a campaign with a whole record finds in 300 attempts; or one whose record is not whole."""
    whole: dict[str, Any] = {
        "artefact": "r1", "threat_model": "t", "risk": "consentive", "team": "6", "hours": 4, "access": "queries", "method": "manual",
        "sampling": "independent", "success_rule": "two judges", "reporting": "board", "mitigation": "none", "untested": ["other languages"],
        "attempts": "a.jsonl",
    }  # fmt: skip
    attempts = [Attempt(family="f", kind="k" if i < 2 else None) for i in range(300)]
    return check_campaign(Campaign(**whole | how), attempts).with_access("black-box")


def test_R86_a_claim_of_safety_without_scope_or_campaign_cannot_be_exported(tmp_path: Path) -> None:
    """It carries its scope, what bounds the unseen, and which families were not tried."""
    said: dict[str, Any] = {"name": "safe", "text": "One answer in a hundred is harmful.", "needs": "black-box", "safety": True}
    scope, evidence = {"scope": "release r1, English, adults"}, {"evidence": ("campaign/failures", "accuracy")}
    for lacking, why in (
        (said | evidence, "it names no scope"),
        (said | evidence | {"scope": " "}, "it names no scope"),
        (said | scope | {"evidence": ("accuracy",)}, "no campaign with a whole record"),
    ):
        claim = Claim(**lacking)
        with pytest.raises(InvalidSetting, match=why):
            export_claims([claim], FINDINGS + campaign(), tmp_path / "claims.csv")
        assert check_claims([claim], FINDINGS + campaign())[0].verdict == "blocking"
    claim = Claim(**said, **scope, **evidence)
    with pytest.raises(InvalidSetting, match="no campaign with a whole record"):
        export_claims([claim], FINDINGS + campaign(team=None), tmp_path / "claims.csv")
    assert not (tmp_path / "claims.csv").exists()
    export_claims([claim], FINDINGS + campaign(), tmp_path / "claims.csv")
    (row, _) = claims_table([claim], FINDINGS + campaign()).to_dicts()
    assert row["scope"] == "release r1, English, adults"
    assert "not tried: other languages" in row["gap"]
    assert "new kind of failure with a chance of up to" in row["gap"]
    assert row["gap"] in (tmp_path / "claims.csv").read_text(encoding="utf-8")
    plain = Claim(name="works", text="It works.", needs="black-box", evidence=("accuracy",))
    assert check_claims([plain], FINDINGS)[0].verdict == "ok", "other claims need neither"


def test_where_a_code_is_there_several_times_the_gravest_counts() -> None:
    """As in a study to which two models were added: a claim is not saved by the one that does well, in whichever order they come."""
    good, bad = (
        Finding(code="benchmark", title=title, estimate=x, verdict=verdict, access="black-box", details={"added": True, "subject": title})
        for title, x, verdict in (("good", 0.9, "ok"), ("bad", 0.1, "blocking"))
    )
    claim = Claim(name="works", text="It works.", needs="black-box", evidence=("benchmark",))
    for found in ((good, bad), (bad, good)):
        assert check_claims([claim], found)[0].verdict == "blocking"
    safe = Claim(name="safe", text="Safe.", needs="black-box", safety=True, scope="r1", evidence=("campaign/failures",))
    other = campaign(untested=["several turns"])
    gap = check_claims([safe], campaign() + other)[0].details["gap"]
    assert "not tried: other languages, several turns" in gap


def test_claims_stand_in_the_register(tmp_path: Path) -> None:
    path = tmp_path / "register.toml"
    path.write_text('[[claims]]\nname = "a"\ntext = "A"\nneeds = "white-box"\nevidence = ["accuracy"]', encoding="utf-8")
    assert check_claims(Register.from_toml(path).claims, FINDINGS)[0].verdict == "blocking"
    path.write_text('[[claims]]\nname = "a"\ntext = "A"\nneeds = "white"', encoding="utf-8")
    with pytest.raises(InvalidRegister, match=r"claims\.0\.needs is 'white'"):
        Register.from_toml(path)
    with pytest.raises(InvalidSetting, match="needs is 'white'"):
        check_claims([Claim.model_construct(name="a", text="A", needs="white")], FINDINGS)


# ---------------------------------------------------------------------------------------------- on every finding


@pytest.fixture(scope="module")
def found() -> dict[str, Findings]:
    feedback = sm.simulate(n_prompts=20, n_raters=12, n_judgments=500, text=False, n_responses=4, seed=1).feedback
    train, held = feedback.split(by="judgment", seed=0)
    return {"data": sm.diagnose(train), "model": sm.evaluate(sm.fit(train), held)}


def test_N33_every_finding_says_what_access_it_rests_on(found: dict[str, Findings]) -> None:
    assert {f.access for f in found["data"]} == {"outside-the-box"}
    assert {f.access for f in found["model"]} == {"white-box", "outside-the-box"}
    ceiling = found["model"].get("leakage")
    assert ceiling is not None
    assert ceiling.access == "outside-the-box"
    assert {f.access for f in found["data"] + found["model"]} == {"outside-the-box", "white-box"}


def test_findings_of_before_load_and_keep_to_the_schema(found: dict[str, Findings], require: Any) -> None:
    jsonschema = require("jsonschema", "Install the extra dev.")
    schema = json.loads((Path(sm.__file__).parent / "findings.schema.json").read_text(encoding="utf-8"))
    old = {k: v for k, v in found["data"][0].to_dict().items() if k != "access"}
    assert Finding(**old).access is None
    document: dict[str, Any] = {
        "version": 1,
        "data": dict.fromkeys(("n_judgments", "n_responses", "n_prompts", "n_raters"), 1) | {"fingerprint": None},
    }
    jsonschema.validate(document | {"findings": [old, found["data"][0].to_dict(), Finding(**old).to_dict()]}, schema)
    wrong = old | {"access": "white"}
    assert not jsonschema.Draft202012Validator(schema).is_valid(document | {"findings": [wrong]})


def test_stamping_leaves_what_is_stated() -> None:
    assert [f.access for f in FINDINGS.with_access("grey-box")] == [
        "outside-the-box", "black-box", "white-box", "grey-box", "white-box", "grey-box",
    ]  # fmt: skip


def test_N33_every_command_says_what_access_its_findings_rest_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the one place that prints them, those too of a check that does not say so itself."""
    feedback = sm.simulate(n_prompts=20, n_raters=12, n_judgments=500, text=False, n_responses=4, seed=1).feedback
    feedback.to_jsonl(tmp_path / "prefs.jsonl")
    sm.fit(feedback, people=sm.Groups()).save(tmp_path / "fit")
    (tmp_path / "groups.csv").write_text("group,share\ngroup A,0.4\ngroup B,0.6\n", encoding="utf-8")
    (tmp_path / "charter.toml").write_text(Charter().to_toml(), encoding="utf-8")
    (tmp_path / "card.md").write_text("# Card\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    append("log.jsonl", "electorate", {"poll": "p", "voters": {"v1": None}, "options": ["A"]}, actor="Clerk")
    for command in (
        "diagnose prefs.jsonl", "evaluate fit prefs.jsonl", "dissent prefs.jsonl", "population prefs.jsonl groups.csv",
        "charter check charter.toml fit prefs.jsonl", "audit ballots log.jsonl p", "audit card .",
    ):  # fmt: skip
        monkeypatch.setattr("sys.argv", ["seamark", *command.split(), "--json"])
        with pytest.raises(SystemExit):
            main()
        said = json.loads(capsys.readouterr().out)["findings"]
        assert said
        assert {f["access"] for f in said} <= set(ACCESS), command
    with pytest.raises(typer.Exit):
        finish(None, FINDINGS, True, None, access="grey-box")
    assert {f["access"] for f in json.loads(capsys.readouterr().out)["findings"]} <= set(ACCESS)
