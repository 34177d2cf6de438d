"""Where optimisation turns is found where it was planted, falls nowhere where it does not, and two signals judge each other out of sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from typer.testing import CliRunner

import seamark as sm
from seamark.checks import optimisation
from seamark.checks.findings import Findings
from seamark.checks.foresight import FORESEEN, check_alarm
from seamark.checks.optimisation import check_optimisation, cross_fitted, trace
from seamark.cli import app
from seamark.errors import InvalidSetting
from seamark.reward.policies import Policies, Pool, best_of_n
from seamark.simulation.overoptimisation import TextWorld, draw_text_world

WORDS = sm.Linear(n_columns=256, residual=None)
GRID = (1, 2, 4, 8, 16, 32, 64)


def hacked(rng: np.random.Generator, share: float, *, n_prompts: int = 400, m: int = 64, loss: float = 2.0) -> Pool:
    """Gold is N(0, 1) and the proxy is gold, but for a share of responses that the proxy loves (6 and noise) and that are worth -loss."""
    gold = rng.normal(size=(n_prompts, m))
    bad = rng.random((n_prompts, m)) < share
    proxy = np.where(bad, 6 + rng.normal(size=gold.shape), gold)
    return Pool.of(np.repeat(np.arange(n_prompts), m), proxy.ravel(), np.where(bad, -loss, gold).ravel())


def expected(share: float, n: int, *, loss: float = 2.0) -> float:
    """Gold of best of n above the start, in closed form: with no bad response among n, the expected maximum of n normals, else -loss."""
    highest = quad(lambda x: x * n * norm.cdf(x) ** (n - 1) * norm.pdf(x), -10, 10)[0]
    clean = (1 - share) ** n
    return clean * highest - loss * (1 - clean) + share * loss


@pytest.mark.parametrize("share", [0.2, 0.05, 0.01])
def test_R39_the_turning_point_is_found_where_it_was_planted(share: float) -> None:
    """Within a step of the grid, the curve within its intervals, and the fall is said."""
    truth = np.array([expected(share, n) for n in GRID])
    pool = hacked(np.random.default_rng(1), share)
    curve = trace(best_of_n(pool, GRID))
    print(share, truth.round(2), curve.gain.round(2), GRID[int(truth.argmax())], GRID[curve.turning])
    assert abs(curve.turning - int(truth.argmax())) <= 1
    assert curve.turning_low <= int(truth.argmax()) <= curve.turning_high
    assert (np.abs(curve.gain - truth) < 4 * (curve.high - curve.low) / 3.92 + 1e-12).all()
    found = check_optimisation(pool)
    best = found.get("optimisation/best-of-n")
    assert best is not None
    assert best.verdict == ("blocking" if truth[-1] < -0.1 else "warning")
    assert best.details["stop_at"] == str(GRID[curve.turning_low])
    assert f"n = {best.details['stop_at']}" in (best.remedy or "")
    assert curve.fall[1] > 0
    assert curve.bend[1] > 0, "gold bends down"
    tilted = found.get("optimisation/tilt")
    assert tilted is not None
    assert tilted.verdict in ("warning", "blocking") or share == 0.01, "a tilt this weak hardly reaches one response in a hundred"


def test_gold_that_does_not_fall_is_not_said_to() -> None:
    """60 pools of 30 prompts in which the proxy is gold with noise: the highest point is seldom the last one, by luck; that it falls is said
    in at most one of 20."""
    rng = np.random.default_rng(2)
    falls, inside, turned = [], [], 0
    for _ in range(60):
        gold = rng.normal(size=(30, 16))
        proxy = 0.2 * gold + rng.normal(size=gold.shape)
        curve = trace(best_of_n(Pool.of(np.repeat(np.arange(30), 16), proxy.ravel(), gold.ravel()), GRID[:5]))
        falls.append(curve.fall[1] > 0)
        turned += curve.turning < 4
        truth = 0.2 / np.sqrt(1.04) * 1.0294  # the slope of gold on the proxy, times the expected maximum of 4
        inside.append(curve.low[2] < truth < curve.high[2])
    print(f"falls {np.mean(falls):.3f}, highest before the end {turned / 60:.2f}, intervals that hold the truth {np.mean(inside):.3f}")
    assert turned > 6, "luck alone moves the highest point"
    assert np.mean(falls) <= 0.05
    assert 0.86 < np.mean(inside) < 0.99


def test_the_law_of_gao_is_read_off_its_own_curve() -> None:
    kl = np.linspace(0, 4, 9)
    d = np.sqrt(kl)
    gold = np.tile(d * (1.3 - 0.4 * d), (12, 1))
    curve = trace(Policies(kl, kl, gold, gold, gold + d, np.zeros(12)))
    assert curve.rise[0] == pytest.approx(1.3)
    assert curve.bend[0] == pytest.approx(0.4)
    assert d[curve.turning] == pytest.approx(1.3 / 0.8, abs=0.15)


def test_a_reward_turned_round_is_blocking_and_one_that_is_gold_has_no_regret() -> None:
    rng = np.random.default_rng(3)
    gold = rng.normal(size=800)
    prompt = np.repeat(np.arange(50), 16)
    bad = check_optimisation(Pool.of(prompt, -gold, gold))
    assert {f.code for f in bad.blocking} == {"optimisation/best-of-n", "optimisation/tilt", "optimisation/regret"}
    good = check_optimisation(Pool.of(prompt, gold, gold), gold="the truth", unit="points")
    assert not good.blocking
    assert [f.verdict for f in good] == ["ok"] * 3
    assert good[1].estimate == pytest.approx(0, abs=1e-12)
    assert "The truth rises by" in good[0].title
    assert json.loads(Findings(tuple(good)).to_json())


def test_a_few_prompts_with_few_responses_do_not_end_the_curve() -> None:
    rng = np.random.default_rng(9)
    prompt = np.concatenate([np.repeat(np.arange(40), 8), [40, 41, 41, 41]])
    proxy = rng.normal(size=len(prompt))
    found = check_optimisation(Pool.of(prompt, proxy, proxy))
    assert [row["n"] for row in found[0].details["curve"]] == ["1", "2", "4", "8"]
    assert found[0].n == 40
    weighted = check_optimisation(Pool.of(prompt, proxy, proxy, weight=1 + rng.random(len(prompt))))
    assert [weighted.get(f"optimisation/{name}").verdict for name in ("best-of-n", "regret", "tilt")] == ["not_applicable"] * 2 + ["ok"]  # type: ignore[union-attr]  # they are there
    assert "2 prompts with fewer than 8 responses left out." in (found[0].reason or "")
    whole = check_optimisation(Pool.of(prompt[:320], proxy[:320], proxy[:320]))
    assert whole[0].details["curve"] == found[0].details["curve"]
    assert "left out" not in (whole[0].reason or "")


def test_what_cannot_be_told_is_not() -> None:
    few = check_optimisation(Pool.of([0, 0, 1, 1], [1, 2, 1, 2], [1, 2, 1, 2]))
    assert [f.verdict for f in few] == ["not_applicable"] * 3
    prompt = np.repeat(np.arange(20), 4)
    rng = np.random.default_rng(4)
    flat = check_optimisation(Pool.of(prompt, np.ones(80), rng.normal(size=80)))
    assert flat.get("optimisation/tilt").verdict == "not_applicable"  # type: ignore[union-attr]  # it is there
    same = check_optimisation(Pool.of(prompt, rng.normal(size=80), np.ones(80)))
    assert same.get("optimisation/regret").verdict == "not_applicable"  # type: ignore[union-attr]  # it is there
    with pytest.raises(InvalidSetting, match="the same prompts"):
        check_optimisation([Pool.of(prompt, prompt, prompt), Pool.of(prompt[:40], prompt[:40], prompt[:40])])


# ---------------------------------------------------------------------------------------------- two signals, each the other's judge


def test_the_two_signals_share_neither_raters_nor_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    feedback = sm.simulate(n_prompts=60, n_responses=4, n_raters=40, n_judgments=1000, seed=5).feedback
    seen: list[Any] = []

    def watched(part: sm.Feedback, **how: Any) -> sm.Fit:
        seen.append(part)
        return sm.fit(part, **how)

    monkeypatch.setattr(optimisation, "fit", watched)
    signals = cross_fitted(feedback, utility=sm.Linear(n_columns=32))
    one, two = signals.pools
    assert signals.how == "two signals, raters and prompts apart"
    assert len(seen) == 6
    for a, b in zip(seen[::2], seen[1::2], strict=True):
        for column in ("prompts", "raters"):
            assert not set(getattr(a, column)["id"]) & set(getattr(b, column)["id"])
    np.testing.assert_array_equal(one.proxy, two.gold)
    np.testing.assert_array_equal(one.gold, two.proxy)
    assert one.n_prompts == 60
    assert len(one.prompt) == len(np.unique(np.concatenate(feedback.judgments["responses"].to_list())))


@pytest.mark.slow
def test_what_learning_from_few_labels_costs_is_seen_without_more_labels() -> None:
    """The other signal's regret is larger from 600 judgments than from 4,000, as is regret by the truth."""
    regret: dict[int, tuple[float, float]] = {}
    for n in (600, 4000):
        society = sm.simulate(n_prompts=90, n_responses=6, n_raters=60, n_judgments=n, unexplained=0.0, seed=6)
        found = check_optimisation(cross_fitted(society.feedback, utility=WORDS).pools, gold="the other signal").get("optimisation/regret")
        assert found is not None
        assert found.estimate is not None
        fitted = sm.fit(society.feedback.filter(np.arange(society.feedback.n_judgments) % 3 == 0), utility=WORDS)
        u = fitted.utilities(society.feedback)
        real = best_of_n(Pool.of(society.feedback.responses["prompt"].to_numpy(), u, society.truth.value), [4]).regret()[0]
        regret[n] = found.estimate, float(real)
    print(regret)
    assert regret[4000][0] < 0.7 * regret[600][0]
    assert regret[4000][1] < regret[600][1]


def test_cross_fitting_says_what_it_lacks() -> None:
    board = sm.simulate(text=False, n_prompts=5, n_responses=5, n_judgments=300, seed=1).feedback
    with pytest.raises(InvalidSetting, match="takes 30, and texts"):
        cross_fitted(board)
    few = sm.simulate(n_prompts=12, n_judgments=300, seed=1).feedback
    with pytest.raises(InvalidSetting, match="takes 30"):
        cross_fitted(few)


def test_cross_fitting_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = sm.simulate(n_prompts=60, n_raters=4, n_judgments=600, seed=1).feedback
    asked = {"utility": sm.Linear(n_columns=16), "resume": tmp_path / "kept"}
    made: list[int] = []

    def stops(*given: Any, **settings: Any) -> sm.Fit:
        made.append(len(made))
        if len(made) == 3:
            raise KeyboardInterrupt
        return sm.fit(*given, **settings)

    monkeypatch.setattr(optimisation, "fit", stops)
    with pytest.raises(KeyboardInterrupt):
        cross_fitted(alone, **asked)
    signals = cross_fitted(alone, **asked)
    assert signals.how == "two signals, prompts apart, 4 raters in common"
    assert len(made) == 3 + 1, "two of three were kept"
    afresh = cross_fitted(alone, utility=sm.Linear(n_columns=16))
    np.testing.assert_array_equal(signals.values, afresh.values)


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_reads_scores_or_judgments(tmp_path: Path) -> None:
    run = CliRunner().invoke
    pool = hacked(np.random.default_rng(7), 0.05, n_prompts=60)
    scores = tmp_path / "scores.csv"
    pl.DataFrame({"prompt": pool.prompt, "proxy": pool.proxy, "gold": pool.gold}).write_csv(scores)
    done = run(app, ["optimise", "--scores", str(scores), "--json"])
    assert done.exit_code == 1, "the strongest policy does harm"
    found = {f["code"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["optimisation/best-of-n"]["verdict"] == "blocking"
    assert {f["access"] for f in found.values()} == {"black-box"}
    source = tmp_path / "prefs.jsonl"
    sm.simulate(n_prompts=33, n_responses=3, n_raters=12, n_judgments=300, seed=8).feedback.to_jsonl(source)
    done = run(app, ["optimise", str(source)])
    assert done.exit_code == 0, done.output
    assert "gold: two signals, prompts apart, 12 raters in common, over 33 prompts" in done.stdout
    assert "optimisation/regret" in done.stdout
    assert "bias-gain/reward" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name judgments, or a table"),
        (["x.jsonl", "--scores", "s.csv"], "Name judgments, or a table"),
        (["--scores", "s.csv", "--axis", "a"], "--axis is 'a'"),
    ],
)
def test_the_command_used_wrongly_says_so(arguments: list[str], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        CliRunner().invoke(app, ["optimise", *arguments], catch_exceptions=False)


# ---------------------------------------------------------------------------------------------- a reward of texts that knows of a bend


@pytest.fixture(scope="module", params=[1.6, np.inf], ids=["too long is too much", "longer is better"])
def texts(request: pytest.FixtureRequest) -> tuple[TextWorld, sm.Fit, sm.Fit]:
    """A world, and what is learned from its pairs without bends and with them."""
    world = draw_text_world(seed=1, turns=request.param)
    plain, bent = (
        sm.fit(world.feedback, utility=sm.Linear(n_columns=256, bends=bends, residual=False), people=sm.Same(), observation=sm.Observation(effects=()),
               require_converged=False)
        for bends in (False, True)
    )  # fmt: skip
    return world, plain, bent


def test_a_fit_with_bends_survives_what_a_straight_one_does_not_and_foresees_it(texts: tuple[TextWorld, sm.Fit, sm.Fit]) -> None:
    world, plain, bent = texts
    prompt = world.feedback.responses["prompt"].to_numpy()
    straight, own = (check_optimisation(Pool.of(prompt, fit.utilities(world.feedback), world.gold))[0] for fit in (plain, bent))
    alarm = check_alarm(bent, world.feedback, scores=plain.utilities(world.feedback))[0]
    gained = straight.details["curve"][-1]["gold_gain"]
    assert own.verdict == "ok"
    assert own.details["fall"]["estimate"] < 0.02
    assert check_alarm(bent, world.feedback)[0].verdict == "ok", "a reward that has learned of the bend does not go beyond it"
    if straight.verdict == "ok":
        assert gained == pytest.approx(own.details["curve"][-1]["gold_gain"], abs=0.05)
        assert (alarm.verdict, alarm.details["stop_at"]) == ("ok", None)
    else:
        assert own.details["curve"][-1]["gold_gain"] > gained + 0.5
        assert alarm.verdict == "warning"
        assert 2 <= alarm.details["stop_at"] <= 16
        assert "follow the fit itself" in (alarm.remedy or "")


def test_bends_are_saved_and_go_when_style_is_discounted(texts: tuple[TextWorld, sm.Fit, sm.Fit], tmp_path: Path) -> None:
    world, _, bent = texts
    bent.save(tmp_path / "fit")
    again = sm.Fit.load(tmp_path / "fit")
    np.testing.assert_allclose(again.utilities(world.feedback), bent.utilities(world.feedback), atol=1e-9)
    names = [name for name, _ in again.basis.parts]
    assert names[0] == "style"
    assert "style:log_characters" in names
    assert names[-1] == "content"
    without = again.utilities(world.feedback, without=("style",))
    length = world.feedback.responses["text"].str.len_chars().log().to_numpy()
    assert abs(np.corrcoef(without, length)[0, 1]) < 0.35 < abs(np.corrcoef(again.utilities(world.feedback), length)[0, 1])


def test_the_alarm_of_the_command_judges_another_reward_model(tmp_path: Path) -> None:
    run = CliRunner().invoke
    source, code, fit = tmp_path / "prefs.jsonl", tmp_path / "long.py", tmp_path / "fit"
    draw_text_world(seed=2, turns=1.3, n_prompts=12, n_responses=48, n_pairs=1500).feedback.to_jsonl(source)
    code.write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    done = run(app, ["fit", str(source), "-o", str(fit), "--utility", "hash+bends"])
    assert done.exit_code == 0, done.output
    asked = ["optimise", str(source), "--fit", str(fit), "--model", f"python:{code}:score", "--json", "--fail-on", "optimisation/alarm"]
    done = run(app, asked)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == ["stopped by --fail-on: optimisation/alarm is warning"]
    found = {f["code"]: f for f in json.loads(done.stdout)["findings"]}
    assert {found[f"optimisation/{name}"]["verdict"] for name in ("outliers", "drift")} == {"notice"}
    assert "not kept with it" in found["optimisation/outliers"]["reason"]
    assert found["optimisation/residual"]["n"] == 11
    assert found["bias-gain/policy"]["estimate"] > 1
    code.write_text("def score(prompts, responses):\n    return [1.0 for _ in responses]\n")
    found = {f["code"]: f for f in json.loads(run(app, asked).stdout)["findings"]}
    assert {f["verdict"] for name, f in found.items() if not name.startswith("scorer")} == {"not_applicable"}
    assert {*FORESEEN, "bias-gain", "scorer/constant"} <= set(found)
    with pytest.raises(InvalidSetting, match="name the one that is followed"):
        run(app, ["optimise", str(source), "--fit", str(fit), "--model", "a.csv", "--model", "b.csv"], catch_exceptions=False)
    with pytest.raises(InvalidSetting, match=r"hash\+bends"):
        run(app, ["fit", str(source), "-o", str(fit), "--utility", "tabular+bends"], catch_exceptions=False)
