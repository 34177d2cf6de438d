"""Red-team campaigns: the unseen mass against societies of failures that are known, records that are not whole, and files that are none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from seamark.checks import Findings
from seamark.cli import app, main
from seamark.errors import InvalidSetting, SeamarkError
from seamark.governance.access import check_claims
from seamark.governance.campaigns import (
    Attempt,
    Campaign,
    check_campaign,
    discovery_curve,
    expected_new,
    least_kinds,
    no_more_than,
    read_attempts,
    two_teams,
    unseen_mass,
)
from seamark.governance.registers import Claim
from seamark.models import Tabular
from seamark.simulation import simulate
from seamark.study import read_findings, run_study

WHOLE: dict[str, Any] = {
    "artefact": "released, 4f2a", "threat_model": "a user asks for instructions", "risk": "dissentive", "team": "6 nurses", "hours": 40,
    "access": "queries", "method": "manual", "sampling": "independent", "success_rule": "two of three judges", "reporting": "the board",
    "mitigation": "none yet", "untested": ["other languages"], "attempts": "attempts.jsonl",
}  # fmt: skip


def probabilities(exponent: float, kinds: int = 500) -> np.ndarray:
    """Zipf's law over the kinds of failure; 0 makes them equally likely."""
    p = np.arange(1, kinds + 1) ** -exponent
    return p / p.sum()


@pytest.mark.parametrize(
    ("exponent", "seen", "chao", "mass", "rmse"),
    [(1.0, 176, 358, 0.218, 0.025), (1.5, 73, 163, 0.085, 0.017), (0.0, 316, 499, 0.368, 0.033)],
)
def test_R79_the_mass_is_right_and_the_number_of_kinds_is_a_lower_bound(
    exponent: float, seen: int, chao: int, mass: float, rmse: float
) -> None:
    """400 searches of 500 attempts among 500 kinds: what is seen, Chao's bound, the mass that is left and how far the estimate is from it.

    Uniform: the mass left is (1 - 1/500)^500 = .368. The interval holds the mass that this very search left in 92 to 98% of them.
    """
    rng = np.random.default_rng(1)
    p = probabilities(exponent)
    rows = []
    for counts in rng.multinomial(500, p, 400):
        found, least = unseen_mass(counts[counts > 0], 500), least_kinds(counts[counts > 0], 500)
        left = float(p[counts == 0].sum())
        rows.append(
            [
                (counts > 0).sum(),
                least.estimate,
                left,
                found.estimate,
                found.estimate - left,
                found.low <= left <= found.high,
                least.low <= 500,
            ]
        )
    x = np.array(rows, dtype=float)
    print(exponent, x.mean(0).round(3), np.sqrt((x[:, 4] ** 2).mean()).round(4))
    assert x[:, 0].mean() == pytest.approx(seen, rel=0.01)
    assert x[:, 1].mean() == pytest.approx(chao, rel=0.03)
    assert x[:, 2].mean() == pytest.approx(mass, abs=0.002)
    assert x[:, 4].mean() == pytest.approx(0, abs=0.004)
    assert np.sqrt((x[:, 4] ** 2).mean()) == pytest.approx(rmse, abs=0.004)
    assert 0.92 < x[:, 5].mean() < 0.98
    assert x[:, 6].mean() > 0.95, "the low end is seldom above what there is"


def test_a_search_that_goes_on_where_it_found_something_is_too_sure() -> None:
    """Wrong on purpose: after a find the next nine attempts find the same. The record has to say so, for the numbers cannot."""
    rng = np.random.default_rng(2)
    p = probabilities(1.0)
    held = []
    for drawn in rng.multinomial(50, p, 300):
        counts = 10 * drawn[drawn > 0]
        found = unseen_mass(counts, 500)
        held.append(found.low <= p[drawn == 0].sum() <= found.high)
    assert np.mean(held) < 0.05


def test_no_failure_in_n_bounds_its_rate_by_three_over_n() -> None:
    for n in (30, 300, 3000):
        assert (1 - no_more_than(n)) ** n == pytest.approx(0.05)
        assert no_more_than(n) == pytest.approx(3 / n, rel=0.06)
    found = unseen_mass([], 300)
    assert (found.estimate, found.low) == (0.0, 0.0)
    assert found.high == no_more_than(300)
    assert least_kinds([], 300).estimate == 0
    with pytest.raises(InvalidSetting, match="the 7 that found something"):
        unseen_mass([3, 4], 5)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_R82_what_the_next_attempts_find_lies_in_its_interval(exponent: float) -> None:
    """400 searches of 500 attempts, and 100, 250 and 500 more: how many new kinds these find lies in the interval in 92 to 98% of them, on
    average as many as was said."""
    rng = np.random.default_rng(4)
    p = probabilities(exponent)
    for more in (100, 250, 500):
        held, off, found_all = [], [], []
        for _ in range(400):
            first, second = rng.multinomial(500, p), rng.multinomial(more, p)
            said = expected_new(first[first > 0], 500, more)
            found = int(((first == 0) & (second > 0)).sum())
            held.append(said.low <= found <= said.high)
            off.append(said.estimate - found)
            found_all.append(found)
        print(exponent, more, np.mean(found_all), np.mean(off).round(2), np.mean(held))
        assert 0.92 <= np.mean(held) <= 0.985
        assert abs(np.mean(off)) < 3 * np.std(off) / 20 + 0.05


def test_R82_new_finds_by_hand_and_what_bounds_them() -> None:
    """10 kinds seen once and 4 twice in 100: half as many more find 10 / 2 - 4 / 4 = 4, as many again 10 - 4 = 6 with se^2 = 6 + 14."""
    counts = [1] * 10 + [2] * 4
    assert expected_new(counts, 100, 50).estimate == pytest.approx(4)
    whole = expected_new(counts, 100, 100)
    assert whole.estimate == pytest.approx(6)
    assert whole.high == pytest.approx(6 + 1.96 * np.sqrt(20), abs=1e-3)
    nothing = expected_new([], 100, 100)
    assert (nothing.estimate, nothing.low) == (0.0, 0.0)
    assert nothing.high == pytest.approx(2.95, abs=0.01), "three in n, times n"
    for more in (0, 101):
        with pytest.raises(InvalidSetting, match="more is"):
            expected_new(counts, 100, more)


def test_R82_the_discovery_curve_is_what_fewer_attempts_found() -> None:
    """The curve of one search against the mean of 4,000 draws of a part of it, without replacement; at its end it is what was found."""
    rng = np.random.default_rng(5)
    counts = np.array([1, 1, 2, 3, 8])
    kinds = np.r_[np.repeat(np.arange(5), counts), np.full(25, -1)]
    curve = discovery_curve(counts, 40, [0, 10, 25, 40])
    drawn = [len(set(rng.permutation(kinds)[:25].tolist()) - {-1}) for _ in range(4000)]
    assert [c.estimate for c in curve][::3] == [0, 5]
    assert curve[2].estimate == pytest.approx(np.mean(drawn), abs=0.05)
    assert curve[1].estimate < curve[2].estimate < 5
    with pytest.raises(InvalidSetting, match="at is 41"):
        discovery_curve(counts, 40, [41])


@pytest.mark.slow
def test_R82_the_curve_of_fewer_attempts_covers_the_mean_of_other_searches() -> None:
    """300 searches of 500 among 100 Zipf kinds: the interval at 200 holds what 200 attempts find on average in 90% or more."""
    rng = np.random.default_rng(6)
    p = probabilities(1.0, 100)
    truth = float((1 - (1 - p) ** 200).sum())
    held = [c.low <= truth <= c.high for x in rng.multinomial(500, p, 300) for c in discovery_curve(x[x > 0], 500, [200])]
    print(truth, np.mean(held))
    assert 0.9 <= np.mean(held) <= 1.0


def test_two_teams_by_hand_and_on_average() -> None:
    """(3 + 1)(4 + 1) / (2 + 1) - 1 = 5.67; unbiased where kinds are as easily found as each other."""
    assert two_teams(["a", "b", "c"], ["b", "c", "d", "e"]).estimate == pytest.approx(17 / 3)
    rng = np.random.default_rng(3)
    found, held = [], []
    for _ in range(500):
        one, two = (np.flatnonzero(rng.random(80) < 0.5).astype(str).tolist() for _ in range(2))
        made = two_teams(one, two)
        found.append(made.estimate)
        held.append(made.low <= 80 <= made.high)
    assert np.mean(found) == pytest.approx(80, abs=1.5)
    assert 0.9 < np.mean(held) <= 0.99


# ---------------------------------------------------------------------------------------------- the record


def tries(n: int = 60, failures: int = 6) -> tuple[Attempt, ...]:
    """Every tenth attempt finds something, of three kinds that come twice each."""
    return tuple(Attempt(family=f"family {i % 3}", kind=f"kind {i // 20}" if i % (n // failures) == 0 else None) for i in range(n))


def test_a_whole_record_says_what_was_found_and_what_was_not_tried() -> None:
    found = check_campaign(Campaign(**WHOLE), tries())
    record, failures, unseen, coming, kinds = found
    assert [f.verdict for f in found] == ["ok"] * 5
    # 3 kinds seen twice each: -(t^2 3) at t = 1 is below 0
    assert coming.estimate == 0
    assert [row["kinds"] for row in coming.details["curve"]][-1] == 3
    assert (failures.estimate, failures.n) == (0.1, 60)
    assert "6 of 60 attempts in 3 families found a failure, of 3 kinds. Not tried: other languages." in failures.title
    assert failures.details["families"]["family 0"] == {"attempts": 20, "failures": 2}
    assert unseen.estimate == 0.0
    assert unseen.high == pytest.approx(1.96 * np.sqrt(2 * 3) / 60, abs=1e-4)
    assert kinds.estimate == 3
    assert record.details["team"] == "6 nurses"
    assert json.loads(Findings(tuple(found)).to_json())
    adaptive = check_campaign(Campaign(**WHOLE | {"sampling": "adaptive"}), tries())
    assert adaptive.get("campaign/unseen").verdict == "notice"  # type: ignore[union-attr]  # it is there
    assert "speaks of this search and not of users" in (adaptive[2].reason or "")


@pytest.mark.parametrize("lacking", sorted(WHOLE))
def test_N32_an_incomplete_campaign_cannot_support_a_claim(lacking: str) -> None:
    """Any question left open blocks the record, and evidence that names the campaign's findings is none (R86)."""
    claim = Claim(name="safe", text="One attempt in a hundred fails.", needs="black-box", evidence=("campaign/failures", "campaign/unseen"))
    whole = check_campaign(Campaign(**WHOLE), tries()).with_access("black-box")
    assert check_claims([claim], whole)[0].verdict == "ok"
    part = check_campaign(Campaign(**{k: v for k, v in WHOLE.items() if k != lacking}), tries()).with_access("black-box")
    assert part[0].verdict == "blocking"
    assert lacking in part[0].title
    (found,) = check_claims([claim], part)
    assert found.verdict == "blocking"
    assert "campaign/failures could not be computed" in found.title


# ---------------------------------------------------------------------------------------------- files


def test_files_are_read_whole(tmp_path: Path) -> None:
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in WHOLE.items())
    (tmp_path / "campaign.toml").write_text(text, encoding="utf-8-sig")  # some editors begin a file with a byte-order mark
    assert Campaign.from_toml(tmp_path / "campaign.toml") == Campaign(**WHOLE)
    assert not Campaign(**WHOLE).missing
    lines = [a.model_dump() | {"prompt": "as it was"} for a in tries()]
    (tmp_path / "attempts.jsonl").write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8-sig")
    (tmp_path / "other.jsonl").write_text(
        '{"family": "x", "kind": "a\u2028b"}\r\n{"family": "x", "kind": null}\r\n', encoding="utf-8", newline=""
    )
    assert [a.kind for a in read_attempts(tmp_path / "other.jsonl")] == ["a\u2028b", None]
    read = read_attempts(tmp_path / "attempts.jsonl")
    assert [(a.family, a.kind) for a in read] == [(a.family, a.kind) for a in tries()]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.toml", 'artefakt = "x"', "unknown key artefakt. The nearest known key is artefact"),
        ("c.toml", 'risk = "high"', "risk is 'high'"),
        ("c.toml", "hours = 0", "hours is 0"),
        ("c.toml", "hours", "A campaign is a TOML file"),
        ("a.jsonl", "", "no attempts"),
        ("a.jsonl", '{"family": "x", "kind": null}\n{"family": "x"}', "line 2: field 'kind'"),
        ("a.jsonl", '{"family": " ", "kind": null}', "line 1: field 'family' is ' '"),
        ("a.jsonl", "{", "line 1"),
    ],
)
def test_a_file_that_is_none_is_one_clear_error(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    read: Any = Campaign.from_toml if name == "c.toml" else read_attempts
    with pytest.raises(SeamarkError, match=said):
        read(tmp_path / name)
    with pytest.raises(SeamarkError, match="nowhere"):
        read(tmp_path / "nowhere")


def test_the_command_shows_what_a_campaign_shows(tmp_path: Path) -> None:
    run = CliRunner().invoke
    path = tmp_path / "campaign.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in WHOLE.items()), encoding="utf-8")
    (tmp_path / "attempts.jsonl").write_text("\n".join(a.model_dump_json() for a in tries()), encoding="utf-8")
    done = run(app, ["campaign", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert [f["code"] for f in json.loads(done.stdout)["findings"]] == [
        f"campaign/{name}" for name in ("record", "failures", "unseen", "next", "kinds")
    ]
    path.write_text(path.read_text(encoding="utf-8").replace("team", "# team"), encoding="utf-8")
    done = run(app, ["campaign", str(path)])
    assert done.exit_code == 1
    assert "1 question open: team" in " ".join(done.stdout.split())
    path.write_text('artefact = "x"', encoding="utf-8")
    assert run(app, ["campaign", str(path)]).exit_code == 1, "the attempts are one of the open questions"


def test_the_command_exports_claims_and_none_that_must_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A claim of safety with its scope and the campaign behind it goes out with its gap; without a scope it blocks (1), and nothing is written. With a study its findings are evidence."""
    monkeypatch.chdir(tmp_path)
    Path("campaign.toml").write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in WHOLE.items()), encoding="utf-8")
    Path("attempts.jsonl").write_text("\n".join(a.model_dump_json() for a in tries()), encoding="utf-8")
    safe = '[[claims]]\nname = "safe"\ntext = "One attempt in five fails, at most."\nneeds = "black-box"\nsafety = true\nevidence = ["campaign/failures"]\n'
    agreed = '[[claims]]\nname = "agreed"\ntext = "Raters agree."\nneeds = "outside-the-box"\nevidence = ["agreement"]\n'
    simulate(n_prompts=12, n_raters=8, n_judgments=60, seed=2).feedback.to_jsonl("prefs.jsonl")
    study = run_study("prefs.jsonl", "study", utility=Tabular()).folder

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["seamark", "campaign", "campaign.toml", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    Path("claims.toml").write_text(safe, encoding="utf-8")
    status, out, err = run("--claims", "claims.toml", "--out", "claims.csv")
    assert status == 1
    assert "it names no scope" in " ".join(out.split())
    assert "claims.csv is not written" in err
    assert not Path("claims.csv").exists()
    assert run("--claims", "claims.toml")[0] == 1, "without --out it is a finding that blocks"
    Path("claims.toml").write_text(safe + 'scope = "release 4f2a, English"\n' + agreed, encoding="utf-8")
    assert "agreement was not computed" in " ".join(run("--claims", "claims.toml", "--out", "claims.csv")[1].split())
    status, out, _ = run("--claims", "claims.toml", "--study", str(study), "--out", "claims.csv", "--into", str(study))
    assert status == 0, out
    assert "claims: claims.csv" in out
    rows = {row["claim"]: row for row in csv.DictReader(Path("claims.csv").read_text(encoding="utf-8").splitlines())}
    assert rows["safe"]["scope"] == "release 4f2a, English"
    assert "not tried: other languages" in rows["safe"]["gap"]
    assert rows["agreed"]["stands"] == "true"
    assert {f.code for f in read_findings(study) if f.details.get("added")} >= {"claim/safe", "campaign/record"}
    Path("campaign.toml").write_text(Path("campaign.toml").read_text().replace('"other languages"', '"several turns"'))
    assert run("--claims", "claims.toml", "--study", str(study), "--out", "claims.csv")[0] == 0
    again = Path("claims.csv").read_text(encoding="utf-8")
    assert "not tried: several turns;" in again, "what the study has of this campaign is of before"
    for option in ("--out", "--study"):
        assert run(option, "claims.csv")[0] == 2
    Path("claims.toml").write_text("", encoding="utf-8")
    assert "It makes no claims" in run("--claims", "claims.toml")[2]


def test_the_campaign_on_the_page_of_findings_is_whole(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
    block = page.split("### campaign\n")[1].split("```toml\n")[1].split("```")[0]
    (tmp_path / "campaign.toml").write_text(block, encoding="utf-8")
    assert not Campaign.from_toml(tmp_path / "campaign.toml").missing
