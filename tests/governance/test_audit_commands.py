"""seamark audit, as a person and as a script sees it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seamark.aggregation import Charter, Electorate
from seamark.cli import main
from seamark.governance import read, verify

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """In this process: (exit status, stdout, stderr)."""

    def _call(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seamark", "audit", *map(str, args)])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return _call


@pytest.fixture
def log(tmp_path: Path, call: Call) -> Path:
    path, charter = tmp_path / "decisions.jsonl", tmp_path / "charter.toml"
    charter.write_text(
        Charter(title="Whose", authors=("Ana",), date="2026-01-01", rationale="We met and chose this.").to_toml(), encoding="utf-8"
    )
    assert call("append", path, "charter", "--actor", "Ana", "--charter", charter)[0] == 0
    assert call("append", path, "sign-off", "--actor", "Ben", "--charter", charter)[0] == 0
    status, out, _ = call(
        "append", path, "exclusion", "--actor", "Ana", "--say", "what=rater r17", "--say", "n=12", "--say", "reason=one a second"
    )
    assert status == 0
    assert out.startswith(f"entry 2 of {path}\nhead: 3:")
    return path


def test_entries_are_appended_with_their_fields(log: Path) -> None:
    charter, signature, exclusion = read(log)
    assert (charter.kind, charter.body["title"]) == ("charter", "Whose")
    assert signature.body["subject"] == charter.body["hash"]
    assert exclusion.body == {"what": "rater r17", "n": 12, "reason": "one a second"}


def test_R67_verify_is_0_on_a_whole_log_and_1_on_a_broken_one(log: Path, call: Call) -> None:
    status, out, _ = call("verify", log)
    assert (status, out) == (0, f"whole\n3 entries can be relied on, head {verify(log).head}\n")
    status, head, _ = call("head", log)
    assert (status, head.strip()) == (0, str(verify(log).head))
    log.write_bytes(log.read_bytes().replace(b"r17", b"r18"))
    status, out, _ = call("verify", log)
    assert status == 1
    assert out.startswith("broken: entry 2 was edited")
    status, out, _ = call("verify", log, "--json")
    told = json.loads(out)
    assert (status, told["ok"], told["problem"], told["place"], told["n"]) == (1, False, "edited", 2, 2)
    status, _, err = call("head", log)
    assert status == 2
    assert "entry 2 was edited" in err


def test_nothing_is_appended_to_a_log_that_was_tampered_with(log: Path, call: Call) -> None:
    """Not where the first entry was changed, either, which an append of the library does not look at."""
    tampered = log.read_bytes().replace(b'"Whose"', b'"Hers!"')
    assert tampered != log.read_bytes()
    log.write_bytes(tampered)
    status, _, err = call("append", log, "note", "--actor", "Ana", "--say", "text=x")
    assert status == 2
    assert "entry 0 was edited" in err
    assert log.read_bytes() == tampered


def test_R67_a_cut_is_seen_with_the_published_head(log: Path, call: Call) -> None:
    head = call("head", log)[1].strip()
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    assert call("verify", log)[0] == 0
    status, out, _ = call("verify", log, "--head", head)
    assert status == 1
    assert "the published head has 3: the end was cut off" in out
    status, _, err = call("verify", log, "--head", "3")
    assert status == 2
    assert "NUMBER:HASH" in err


def test_R67_an_export_is_verified_as_a_folder(log: Path, call: Call, tmp_path: Path) -> None:
    status, out, _ = call("export", log, "-o", tmp_path / "audit", "--access", "outside-the-box", "--withheld", "weights")
    assert status == 0
    assert "next: seamark audit verify" in out
    assert call("verify", tmp_path / "audit")[0] == 0
    (tmp_path / "audit" / "charters" / "000000" / "charter.toml").write_text("", encoding="utf-8")
    status, out, _ = call("verify", tmp_path / "audit")
    assert status == 1
    assert "charters/000000/charter.toml does not match its hash" in out
    status, _, err = call("export", log, "-o", tmp_path / "other", "--access", "white")
    assert status == 2
    assert "Use black-box" in err


def test_N26_each_recipient_gets_their_own_report(log: Path, call: Call) -> None:
    said = {who: call("report", log, "--to", who)[1] for who in ("public", "peer", "regulator")}
    assert ["one a second" in said[who] for who in said] == [False, True, True]
    assert ["Ben" in said[who] for who in said] == [False, False, True]
    assert all(json.loads(text)["recipient"] == who for who, text in said.items())
    status, _, err = call("report", log, "--to", "press")
    assert status == 2
    assert "Use public, peer or regulator" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("exclusion", "--actor", "Ana"), "also says what, n, reason"),
        (("charter", "--actor", "Ana"), "give the file, --charter charter.toml"),
        (
            ("electorate", "--actor", "Ana", "--say", "poll=p", "--say", 'voters=["v1"]', "--say", 'options=["A"]'),
            'or null: {"v1": "city", "v2": null}',
        ),
        (("exclusions", "--actor", "Ana"), "nearest known kind is exclusion"),
        (("charter", "--actor", "Ana", "--charter", "{charter}", "--say", "reason=x"), "A charter is appended as it is"),
        (("note", "--actor", "Ana", "--say", "text"), "as in --say reason=duplicate"),
        (("note", "--actor", "", "--say", "text=x"), "Name who answers"),
    ],
)
def test_wrong_use_is_2_and_changes_nothing(args: tuple[str, ...], said: str, log: Path, call: Call) -> None:
    before = log.read_bytes()
    status, _, err = call("append", log, *(arg.replace("{charter}", str(log.parent / "charter.toml")) for arg in args))
    assert status == 2
    assert said in " ".join(err.split())
    assert log.read_bytes() == before


def test_R65_a_folder_that_is_no_study_is_not_released(log: Path, call: Call, tmp_path: Path) -> None:
    status, _, err = call("release", tmp_path, log, "--actor", "Ana")
    assert status == 2
    assert "no readable card.md" in err
    (tmp_path / "card.md").write_text("# Card\n", encoding="utf-8")
    status, out, _ = call("release", tmp_path, log, "--actor", "Ana", "--json")
    assert status == 1
    told = json.loads(out)
    assert told["released"] is False
    assert any("no findings.json" in reason for reason in told["reasons"])
    assert [e.kind for e in read(log)] == ["charter", "sign-off", "exclusion"]


def test_N19_ballots_are_counted_and_held_against_a_charter(log: Path, call: Call, tmp_path: Path) -> None:
    call(
        "append",
        log,
        "electorate",
        "--actor",
        "Ana",
        "--say",
        "poll=p",
        "--say",
        'voters={"v1": null, "v2": null}',
        "--say",
        'options=["A", "B"]',
    )
    call("append", log, "ballot", "--actor", "v1", "--say", "poll=p", "--say", "voter=v1", "--say", "choice=A")
    status, out, _ = call("ballots", log, "p")
    assert status == 0
    assert "1 of 2 voters took part" in " ".join(out.split())
    for weights, expected in (({"A": 1.0}, 0), ({"A": 0.5, "B": 0.5}, 1)):
        charter = Charter(
            authors=("Ana",),
            date="2026-01-01",
            rationale="We met and chose this.",
            electorate=Electorate(weighting="named", weights=weights),
        )
        (tmp_path / "weights.toml").write_text(charter.to_toml(), encoding="utf-8")
        status, out, _ = call("ballots", log, "p", "--charter", tmp_path / "weights.toml", "--json")
        assert status == expected
        assert [f["code"] for f in json.loads(out)["findings"]].count("ballots/weights") == 1
    call("append", log, "ballot", "--actor", "x", "--say", "poll=p", "--say", "voter=v1", "--say", "choice=B")
    assert "x for v1, who voted themselves" in " ".join(call("ballots", log, "p")[1].split())
    (tmp_path / "sizes.toml").write_text(Charter(authors=("Ana",)).to_toml(), encoding="utf-8")
    status, out, _ = call("ballots", log, "p", "--charter", tmp_path / "sizes.toml")
    assert status == 1
    assert 'its weighting is "sizes", as many raters' in " ".join(out.split())
    status, _, err = call("ballots", log, "q")
    assert status == 2
    assert "no electorate" in err


def test_R109_a_card_is_checked_alone_and_against_the_log(log: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "card.md").write_text("# Card\n", encoding="utf-8")
    status, out, _ = call("card", tmp_path / "out", "--json")
    assert status == 1
    assert "card/released" not in out
    status, out, _ = call("card", tmp_path / "out", log, "--json")
    assert status == 1
    released = next(f for f in json.loads(out)["findings"] if f["code"] == "card/released")
    assert released["details"]["wrong"] == ["the log has no release"]
