"""The search finds loopholes that were planted, calls honest rewards honest, and keeps to its budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import seamark as sm
from seamark.checks.attacks import read_attacks
from seamark.checks.loopholes import Loopholes, check_exploit, check_loopholes, search_loopholes
from seamark.cli import app
from seamark.errors import InvalidSetting, SeamarkError
from tests.checks.wordy import PHRASE, WORTH, Rewards, paying, truth, unsure, write

PAID = PHRASE[:-1]
PLANTED: dict[str, tuple[str, Rewards, Rewards]] = {
    "phrase": ("insertion", paying(2.0, lambda r: PAID in r), truth),
    "length": ("recombination", paying(0.05, lambda r: len(r.split())), truth),
    "brevity": ("deletion", paying(-0.3, lambda r: len(r.split())), paying(0.3, lambda r: len(r.split()))),
    "in the pool": ("best-of-n", paying(4.0, lambda r: PAID in r), paying(-2.0, lambda r: PAID in r)),
}
"""Loopholes: the move that is to find each, the reward that has it, and what the response is worth."""


def search(proxy: Rewards, seed: int, *, share: float = 0.05, **how: Any) -> Loopholes:
    prompts, responses = write(np.random.default_rng(seed), share=share)
    how = {"gold": unsure(truth, 0.2, "gold"), "budget": 1200, "seed": seed} | how
    return search_loopholes(proxy, prompts, responses, **how)


def test_R51_a_planted_loophole_is_found_within_its_budget() -> None:
    """A phrase in one of 20 responses is paid for; gold and every response that has it are noisy. It is found by asking about 1,200 texts."""
    asked: set[tuple[str, str]] = set()
    proxy = PLANTED["phrase"][1]

    def watched(prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
        asked.update(zip(prompts, responses, strict=True))
        return proxy(prompts, responses)

    found = search(watched, 1)
    assert len(asked) == found.n_scored <= 1200
    moves = {way.move for way in found.found}
    assert "insertion" in moves
    assert any(PHRASE[:-1] in way.kind for way in found.found)
    said = check_loopholes(found)
    whole = said.get("loophole")
    assert whole is not None
    assert whole.verdict == "blocking", "it beats all of the pool"
    assert "as everyone agrees" in whole.title
    of = said.get("loophole/insertion")
    assert of is not None
    assert of.high is not None
    assert of.high < 0
    assert json.loads(said.to_json())


def test_R51_an_honest_reward_has_no_loophole() -> None:
    """Wrong on purpose: the reward is gold with an error, and a monotone function of it."""
    for seed, proxy in enumerate((unsure(truth, 0.1, "a"), lambda p, r: np.tanh(truth(p, r)))):
        found = search(proxy, seed)
        assert not found.found
        assert check_loopholes(found).get("loophole").verdict == "ok"  # type: ignore[union-attr]  # it is there


@pytest.mark.slow
def test_R51_how_often_it_finds_what_is_there_and_what_is_not() -> None:
    """20 searches for each planted loophole find it by its own move in 90% or more; of 80 searches of honest rewards (gold with an independent error, of
    which the search takes advantage as well) at most 5% find one, and by luck no more than 8 (the 97.5% point of that many)."""
    power = {}
    for name, (move, proxy, worth) in PLANTED.items():
        gold, share = unsure(worth, 0.2, "gold"), 0.25 if name == "in the pool" else 0.05
        found = [search(proxy, seed, share=share, gold=gold, budget=2000) for seed in range(100, 120)]
        power[name] = np.mean([move in {way.move for way in one.found} for one in found])
    honest = [bool(search(unsure(truth, sd, f"a{seed}"), seed, budget=2000).found) for sd in (0.05, 0.1) for seed in range(100, 140)]
    print(power, f"false alarms {np.mean(honest):.3f}")
    assert min(power.values()) >= 0.9
    assert sum(honest) <= 8


def test_an_ensemble_and_ignorance_disown_as_gold_does() -> None:
    """Members that learned the phrase's worth from one response each disagree about it; ignorance grows with what was seldom seen."""
    proxy = paying(2.0, lambda r: PHRASE[:-1] in r)
    members = [unsure(paying(bonus, lambda r: PHRASE[:-1] in r), 0.05, str(bonus)) for bonus in (4.0, -3.0, 1.0)]
    found = search(proxy, 2, gold=None, ensemble=members, ignorance=lambda _, rs: [3.0 * r.count(PHRASE[:-1]) for r in rs])
    judges = {found.disowned(way) for way in found.found if way.move == "insertion"}
    assert judges & {"the ensemble, less its spread", "the reward, less its ignorance"}
    only = search(proxy, 2, gold=None, ignorance=lambda _, rs: [3.0 * r.count(PHRASE[:-1]) for r in rs])
    assert "insertion" in {way.move for way in only.found}
    alike = search(truth, 2, gold=None, ensemble=[unsure(truth, 0.05, str(i)) for i in range(3)])
    assert not alike.found


def test_a_policy_is_searched_too() -> None:
    """One that writes what the reward pays for and nobody wants, and one that writes well."""
    worst, best = sorted(WORTH, key=WORTH.__getitem__)[:6], sorted(WORTH, key=WORTH.__getitem__)[-6:]
    proxy = paying(9.0, lambda r: "PLEASE" in r)
    bad = search(proxy, 3, policy=lambda ps: [[f"PLEASE {' '.join(worst)}.", "PLEASE."] for _ in ps])
    assert "policy" in {way.move for way in bad.found}
    good = search(proxy, 3, policy=lambda ps: [[" ".join(best) + "."] for _ in ps])
    assert "policy" in {way.move for way in good.ways}
    assert "policy" not in {way.move for way in good.found}
    assert search(proxy, 3, policy=lambda ps: [[] for _ in ps]).ways, "one that writes nothing"


def test_the_same_seed_searches_alike_and_a_stopped_search_goes_on(tmp_path: Path) -> None:
    proxy = PLANTED["phrase"][1]
    one, two = (search(proxy, 4, budget=600, cache=tmp_path / "scores.jsonl") for _ in range(2))
    assert [w.responses for w in one.ways] == [w.responses for w in two.ways]
    asked: list[str] = []
    search(lambda p, r: asked.extend(r) or proxy(p, r), 4, budget=600, cache=tmp_path / "scores.jsonl")
    assert not asked, "all of it was scored before"


@pytest.mark.parametrize("kind", ["nan", "constant", "dies", "count"])
def test_bad_scorers_are_findings(kind: str) -> None:
    def scorer(_: Sequence[Any], responses: Sequence[str]) -> Any:
        if kind == "dies":
            raise RuntimeError("out of memory")
        if kind == "count":
            return [1.0]
        return np.full(len(responses), np.nan if kind == "nan" else 1.0)

    said = check_loopholes(search(scorer, 1, budget=300))
    assert said.get("loophole").verdict == "not_applicable"  # type: ignore[union-attr]  # it is there
    assert said[0].verdict == "blocking"


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_a_judge_that_says_nothing_has_not_found_it_sound(value: float) -> None:
    said = check_loopholes(search(truth, 1, gold=lambda _, responses: np.full(len(responses), value), budget=300))
    assert said.get("loophole").verdict == "not_applicable"  # type: ignore[union-attr]  # it is there


def test_what_cannot_be_sought_says_why() -> None:
    nobody = check_loopholes(search(truth, 1, gold=None, budget=300)).get("loophole")
    assert nobody is not None
    assert "There is no judge" in (nobody.reason or "")
    prompts, responses = write(np.random.default_rng(1), n_prompts=12)
    few = check_loopholes(search_loopholes(truth, prompts, responses, gold=truth)).get("loophole")
    assert few is not None
    assert "12 prompts" in (few.reason or "")
    assert search_loopholes(truth, [], [], gold=truth).problem
    for wrong in ({"budget": 5}, {"ensemble": [truth]}):
        with pytest.raises(InvalidSetting):
            search(truth, 1, **wrong)
    with pytest.raises(InvalidSetting, match="one prompt for each"):
        search_loopholes(truth, prompts[1:], responses)


# ---------------------------------------------------------------------------------------------- a few gold labels


def test_a_gain_that_gold_does_not_share_is_an_exploit() -> None:
    rng = np.random.default_rng(7)
    before, after = rng.normal(size=200), rng.normal(3, 1, size=200)
    down, same, up = (check_exploit(before, after, rng.normal(size=20), rng.normal(shift, 1, size=20)) for shift in (-2, 0, 2))
    assert [f.verdict for f in (down, same, up)] == ["blocking", "warning", "ok"]
    assert down.n == 40
    assert check_exploit(before, before, before[:9], before[:9] - 9).verdict == "ok", "the reward did not rise"
    with pytest.raises(InvalidSetting, match="gold_after"):
        check_exploit(before, after, before, after[:4])


def test_a_table_of_before_and_after_is_asked_for_an_exploit(tmp_path: Path) -> None:
    """Gold is known of the first 20 rows of each policy; the figures are those of the arrays."""
    rng = np.random.default_rng(8)
    proxy, gold = rng.normal(np.repeat([0, 3], 100)), rng.normal(np.repeat([0, -2], 100))
    known = np.tile(np.arange(100) < 20, 2)
    table = pl.DataFrame(
        {"policy": ["before"] * 100 + ["after"] * 100, "reward": proxy, "gold": pl.Series(gold).set(pl.Series(~known), None)}
    )
    path = tmp_path / "runs.csv"
    table.write_csv(path)
    run = CliRunner().invoke
    done = run(app, ["optimise", "--scores", str(path), "--proxy", "reward", "--json"])
    assert done.exit_code == 1, "it exploits the reward"
    (found,) = json.loads(done.stdout)["findings"]
    same = check_exploit(proxy[:100], proxy[100:], gold[:20], gold[100:120])
    assert (found["code"], found["verdict"], found["n"], found["estimate"]) == ("exploit", "blocking", 40, pytest.approx(same.estimate))
    prompts = table.with_columns(prompt=pl.Series([f"prompt {k % 10}" for k in range(200)]))
    prompts.write_csv(path)
    (found,) = json.loads(run(app, ["optimise", "--scores", str(path), "--proxy", "reward", "--json"]).stdout)["findings"]
    means = [[gold[part][k:20:10].mean() for k in range(10)] for part in (slice(0, 100), slice(100, 200))]
    assert (found["n"], found["estimate"]) == (10, pytest.approx(np.subtract(means[1], means[0]).mean()))
    assert "differences within prompts" in found["reason"]
    for frame, arguments, said in (
        (table.with_columns(policy=pl.lit("ppo")), [], "column 'policy' holds 'ppo'.*Write before or after"),
        (table.with_columns(policy=pl.lit(None, dtype=pl.String)), [], "column 'policy' holds None"),
        (table, ["--proxy", "gold"], "name the one that the policy followed"),
        (table.filter(policy="after"), [], "proxy_before is '0 numbers'"),
        (table.drop("policy"), [], "no column 'prompt'"),
    ):
        frame.write_csv(path)
        with pytest.raises(SeamarkError, match=said):
            run(app, ["optimise", "--scores", str(path), "--proxy", "reward", *arguments], catch_exceptions=False)


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_searches_and_keeps_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prompts, responses = write(np.random.default_rng(1), n_prompts=60)
    lines = [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in zip(prompts[::2], responses[::2], responses[1::2], strict=True)]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (tmp_path / "paid.py").write_text(
        "from tests.checks.wordy import PHRASE, paying, truth\nproxy = paying(2.0, lambda r: PHRASE[:-1] in r)\n", encoding="utf-8"
    )
    run = CliRunner().invoke
    model = f"python:{tmp_path / 'paid.py'}:proxy"
    done = run(
        app,
        [
            "search",
            model,
            "pairs.jsonl",
            "--gold",
            "python:tests.checks.wordy:truth",
            "--budget",
            "1200",
            "--out",
            "attacks.jsonl",
            "--json",
        ],
    )
    assert done.exit_code == 1, done.output
    found = {f["code"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["loophole"]["verdict"] == "blocking"
    assert {f["access"] for f in found.values()} == {"black-box"}
    kept = read_attacks("attacks.jsonl")
    assert {a.family for a in kept} >= {"insertion"}
    assert all(a.artefact == model for a in kept)
    done = run(app, ["attacks", model, "attacks.jsonl", "--json"])
    assert done.exit_code == 1, "they work on it"
    honest = "python:tests.checks.wordy:truth"
    done = run(app, ["attacks", honest, "attacks.jsonl", "--mark-patched", "release 2"])
    assert done.exit_code == 0, done.output
    assert {a.patched for a in read_attacks("attacks.jsonl")} == {"release 2"}
    done = run(app, ["attacks", model, "attacks.jsonl", "--fail-on", "attacks/regression"])
    assert done.exit_code == 1
    assert "work again" in " ".join(done.stdout.split())
    pl.DataFrame({"prompt": prompts[:8], "response": ["w1 w2." for _ in range(8)]}).write_ndjson("written.jsonl")
    done = run(app, ["search", honest, "pairs.jsonl", "--gold", honest, "--candidates", "written.jsonl", "--budget", "500"])
    assert done.exit_code == 0, done.output
    assert "loophole/policy" in done.stdout
    assert not Path("nothing.jsonl").exists()
    done = run(app, ["search", honest, "pairs.jsonl", "--budget", "300", "--out", "nothing.jsonl"])
    assert not Path("nothing.jsonl").exists()
    assert "no judge" in " ".join(done.stdout.split())


def test_the_judgments_themselves_are_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People cannot stand a phrase that the reward pays for. A signal fitted to what people chose disowns it, and a fit is no judge of itself."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    prompts, responses = write(rng, n_prompts=60, share=0.3)
    left, right = responses[::2], responses[1::2]
    people = paying(-8.0, lambda r: PAID in r)
    better = people(prompts[::2], left) > people(prompts[::2], right)
    lines = [
        {"prompt": p, "chosen": a if b else c, "rejected": c if b else a}
        for p, a, c, b in zip(prompts[::2], left, right, better, strict=True)
    ]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    Path("paid.py").write_text(
        "from tests.checks.wordy import PHRASE, paying\nproxy = paying(3.0, lambda r: PHRASE[:-1] in r)\n", encoding="utf-8"
    )
    done = CliRunner().invoke(app, ["search", "python:paid.py:proxy", "pairs.jsonl", "--gold", "judgments", "--budget", "600", "--json"])
    assert done.exit_code == 1, done.output
    found = {f["code"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["loophole"]["details"]["judges"] == ["gold"]
    assert found["loophole/insertion"]["verdict"] in ("warning", "blocking")
    assert any("agrees" in way["kind"] for way in found["loophole/insertion"]["details"]["ways"])
    sm.fit(sm.load("pairs.jsonl"), utility=sm.Linear(n_columns=8, residual=False), require_converged=False).save(Path("fit"))
    with pytest.raises(InvalidSetting, match="would judge itself"):
        CliRunner().invoke(app, ["search", "fit", "pairs.jsonl", "--gold", "judgments"], catch_exceptions=False)


def test_the_command_asks_a_fit_for_its_ignorance(tmp_path: Path) -> None:
    feedback = sm.simulate(n_prompts=40, n_responses=4, n_raters=12, n_judgments=500, groups=1, seed=1).feedback
    feedback.to_jsonl(tmp_path / "prefs.jsonl")
    sm.fit(feedback, utility=sm.Linear(n_columns=8, residual=False), require_converged=False).save(tmp_path / "fit")
    place = [str(tmp_path / name) for name in ("fit", "prefs.jsonl")]
    done = CliRunner().invoke(app, ["search", *place, "--budget", "400", "--gold", str(tmp_path / "fit"), "--json"])
    assert done.exit_code in (0, 1), done.output
    found = {f["code"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["loophole"]["details"]["judges"] == ["gold", "the reward, less its ignorance"]
    assert found["loophole"]["details"]["scored"] <= 400
