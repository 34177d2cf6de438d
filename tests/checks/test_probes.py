"""Each probe finds what was planted, sizes it, and lets pass what was not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import seamark as sm
from seamark.checks.findings import Finding, Findings
from seamark.checks.perturbations import BANKS, FAMILIES, MinimalPair, bank_pairs, items
from seamark.checks.probe_texts import texts_of
from seamark.checks.probes import check_probes, frame_of
from seamark.cli import app
from seamark.errors import InvalidSetting

Scorer = Callable[[Sequence[Any], Sequence[str]], list[float]]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def planted() -> Iterator[ModuleType]:
    """benchmarks/planted_rewards.py."""
    sys.path.insert(0, str(BENCHMARKS))
    import planted_rewards  # pyright: ignore[reportMissingImports]

    yield planted_rewards
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def feedback() -> sm.Feedback:
    return sm.simulate(n_prompts=40, n_responses=3, n_judgments=300, length=0.0, careless=0.0, opposed=0.0, seed=1).feedback


def each(one: Callable[[str, str], float]) -> Scorer:
    return lambda prompts, responses: [one(str(p), r) for p, r in zip(prompts, responses, strict=True)]


def chance(_prompt: str, text: str) -> float:
    """A number between 0 and 1 that goes with nothing, much the same for much the same text."""
    letters = np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=256)
    return float(letters @ np.random.default_rng(0).normal(size=256)) / max(len(text), 1)


def get(found: Findings, code: str) -> Finding:
    finding = found.get(f"probe/{code}")
    assert finding is not None, code
    return finding


def by_length(_prompt: str, text: str) -> float:
    return float(np.log2(1 + len(text)))


def test_every_family_has_a_finding_and_they_are_in_every_unit(feedback: sm.Feedback) -> None:
    found = check_probes(each(by_length), judgments=feedback, train=feedback, n=30)
    assert {f.code for f in found} >= {
        "probe",
        "scorer",
        *(f"probe/{family}" for family in (*FAMILIES, *BANKS, "length", "phrases", "density")),
    }
    padding = get(found, "padding")
    assert padding.verdict == "warning"
    assert 0.3 < padding.details["effect"] < 1.2, "padding adds as much as there is, 220 characters or so at the most"
    assert padding.details["sd"] > 1
    assert get(found, "repetition").verdict == "warning"
    for code in ("typos", "order", "sycophancy"):
        assert get(found, code).estimate == 0
        assert get(found, code).verdict == "ok"
    assert get(found, "gibberish").verdict == "warning", "it does not see that the text is gibberish"
    assert get(found, "empty").verdict == "ok"
    assert found[0].code == "probe"
    assert "probe/padding" in found[0].details["flagged"]
    assert "30 of 119 responses" in found[0].title or "30 of 120 responses" in found[0].title
    json.loads(found.to_json(), parse_constant=lambda x: pytest.fail(f"{x} is no JSON"))
    frame = frame_of(found)
    assert {"probe", "effect", "logits", "sd", "estimate", "low", "high", "n"} <= set(frame.columns)


def test_points_are_those_of_preference(feedback: sm.Feedback) -> None:
    """A trick of one logit: mean over the other responses of sigma(gap + 1) - sigma(gap), worked out again the slow way."""
    texts = feedback.responses["text"].to_list()
    value = dict(zip(texts, np.random.default_rng(0).normal(size=len(texts)).tolist(), strict=True))

    def score(_prompt: str, text: str) -> float:
        return next((v for t, v in value.items() if text.startswith(t)), 0.0) + (text not in value)

    found = get(check_probes(each(score), *texts_of(feedback), families=["padding"], n=200, logits=True), "padding")
    assert found.details["effect"] == found.details["logits"] == pytest.approx(1)
    of = feedback.responses["prompt"].to_list()

    def sigma(x: float) -> float:
        return float(1 / (1 + np.exp(-x)))

    by_prompt: dict[int, list[float]] = {}
    for text, prompt in zip(texts, of, strict=True):
        by_prompt.setdefault(prompt, []).append(value[text])
    points = [
        np.mean([sigma(v - w + 1) - sigma(v - w) for j, w in enumerate(vs) if j != i])
        for vs in by_prompt.values()
        for i, v in enumerate(vs)
        if len(vs) > 1
    ]
    assert found.estimate == pytest.approx(np.mean(points), abs=1e-9)
    assert found.n == len(texts)


def test_a_trick_taken_out_counts_as_one_put_in() -> None:
    prompts, texts = [f"q{i // 2}" for i in range(40)], [f"Great question! Number {i} is {i % 7}. It rains." if i % 2 else f"Number {i} is {i % 5}. It rains." for i in range(40)]  # fmt: skip
    polite = each(
        lambda _p, t: (
            1.0
            * (
                "question!" in t
                or "help" in t
                or "hope" in t
                or "Let me know" in t
                or "Have a great" in t
                or "Feel free" in t
                or "!" in t
                or "hesitate" in t
            )
        )
    )
    found = get(check_probes(polite, prompts, texts, families=["pleasantries"], n=40), "pleasantries")
    assert {row["variant"] for row in found.details["variants"]} == {"before", "after", "taken out"}
    assert all(row["effect"] > 0.6 for row in found.details["variants"])


# ---------------------------------------------------------------------------------------------- what was planted


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2, 3))])
def test_R38_the_planted_phrase_ranks_first(seed: int, planted: ModuleType) -> None:
    """Among the runs of words and the stock phrases; without a planted one no phrase is flagged."""
    world = planted.make_world(seed)
    phrase = planted.STOCK[seed].rstrip(".")
    found = check_probes(
        each(lambda p, t, w=world, x=phrase: w.value(p, t) + 1.5 * (x in t)),
        judgments=world.held_out,
        families=["phrases"],
        n=80,
        seed=seed,
    )
    top = get(found, "phrases").details["phrases"][0]
    print(seed, phrase, "|", top)
    assert top["phrase"] in phrase.lower() or phrase.lower() in top["phrase"]
    assert top["effect"] == pytest.approx(1.5, abs=0.2)
    assert get(found, "phrases").verdict == "warning"
    plain = get(check_probes(each(world.value), judgments=world.held_out, families=["phrases"], n=80, seed=seed), "phrases")
    assert plain.verdict == "ok", plain.title


def test_R40_padding_raises_the_flag_and_added_facts_do_not(feedback: sm.Feedback, planted: ModuleType) -> None:
    def facts(_prompt: str, text: str) -> float:
        return float(sum(planted._kind(s) == 1 for s in text.split(". ")))

    for scorer, flagged in ((by_length, True), (facts, False)):
        found = check_probes(each(scorer), judgments=feedback, families=["padding", "density"], n=60)
        density = get(found, "density")
        print(density.title)
        assert (get(found, "padding").verdict != "ok") is flagged
        assert (density.verdict != "ok") is flagged
        assert density.details["facts_low"] > 0, "the other half is worth something to both"
        assert abs(density.estimate or 0.0) < 0.01 or flagged


@pytest.mark.parametrize("bonus", [0.0, 0.3, 1.0])
def test_R52_a_planted_agreement_bonus_is_sized(bonus: float) -> None:
    """Only the prompt changes; right and wrong responses get the same bonus for saying what its writer thinks."""
    sycophant = each(lambda p, t: chance(p, t) + bonus * (t.partition(".")[0].lower() in p.lower()))
    found = get(check_probes(sycophant, families=["sycophancy"], n=72, logits=True), "sycophancy")
    assert found.details["effect"] == pytest.approx(bonus, abs=1e-9)
    assert found.details["logits"] == found.details["effect"]
    assert found.verdict == ("ok" if bonus == 0 else "warning")
    if bonus:
        assert 0.8 * (1 / (1 + np.exp(-bonus)) - 0.5) < (found.estimate or 0) <= 1 / (1 + np.exp(-bonus)) - 0.5


def test_R53_refusing_everything_is_right_in_a_half() -> None:
    refusals, harmful = set(items()["refusals"]), {item["prompt"] for item in items()["refuse"]}

    def refuse(_prompt: str, text: str) -> float:
        return 1.0 * (text in refusals)

    shares: dict[str, float | None] = {}
    for name, score, verdict in (
        ("refuse all", refuse, "warning"), ("refuse nothing", lambda p, t: -refuse(p, t), "warning"),
        ("tell apart", lambda p, t: refuse(p, t) * (1 if p in harmful else -1), "ok"),
    ):  # fmt: skip
        found = get(check_probes(each(lambda p, t, s=score: s(p, t) + 0.01 * chance(p, t)), families=["refusal"], n=72), "refusal")
        shares[name] = found.estimate
        assert found.verdict == verdict, name
        assert found.details["frontier"][0]["answered"] <= found.details["frontier"][-1]["answered"]
    assert shares == {"refuse all": 0.5, "refuse nothing": 0.5, "tell apart": 1.0}


def test_R80_the_sample_covers_combinations_of_factors(feedback: sm.Feedback) -> None:
    few, many = (
        get(check_probes(each(chance), judgments=feedback, families=["padding", "lists", "typos"], n=n), "coverage") for n in (12, 100)
    )
    two = many.details["ways"]["2"]
    assert many.details["factors"] == ["family", "topic", "length"]
    assert many.details["levels"] == [3, 4, 3]
    assert two["possible"] == 3 * 4 + 3 * 3 + 4 * 3
    assert two["covered"] == two["possible"]
    assert two["fewest_probes"] == 12 <= two["greedy_probes"]
    assert few.details["ways"]["3"]["covered"] <= many.details["ways"]["3"]["covered"] == 36
    assert few.details["ways"]["2"]["covered"] == two["possible"], (
        "twelve responses already meet all topics and lengths, since the sample takes turns"
    )


@pytest.mark.parametrize("family", ["obfuscation", "manipulation", "sandbagging"])
def test_R81_each_subtle_family_has_a_planted_positive_and_negative(family: str) -> None:
    pairs = bank_pairs(family)
    good, bad = {p.changed for p in pairs}, {p.text for p in pairs}
    alarming = ("account", "pills", "money", "hurt", "drink", "fake", "gun", "inspector", "answer", "papers", "sign", "wrong", "not")

    def sees(_prompt: str, text: str) -> float:
        return 1.0 * (text in good) - 1.0 * (text in bad)

    planted: dict[str, Callable[[str, str], float]] = {
        # likes what has none of the words that give harm away
        "obfuscation": lambda _p, t: -float(sum(word in t.lower() for word in alarming)) - 0.5 * (t in good),
        "manipulation": lambda p, t: -sees(p, t),
        "sandbagging": lambda p, t: sees(p, t) * (-1.0 if "test" in p or "evaluated" in p or "Benchmark" in p else 1.0),
    }  # fmt: skip
    for score, verdict in ((planted[family], "warning"), (sees, "ok")):
        found = get(check_probes(each(lambda p, t, s=score: s(p, t) + 0.001 * chance(p, t)), families=[family], n=72), family)
        print(found.title)
        assert found.verdict == verdict


def test_R85_a_keyword_model_fails_and_a_contextual_one_passes() -> None:
    rows = items()["keywords"]
    listed, harmful = [row["word"] for row in rows], {row["harmful"] for row in rows}
    models: dict[str, Callable[[str, str], float]] = {
        "keywords": lambda _p, t: -float(any(word in t.lower() for word in listed)),
        "context": lambda _p, t: -float(t in harmful),
    }
    found = {
        name: get(check_probes(each(lambda p, t, m=m: m(p, t) + 0.001 * chance(p, t)), families=["keywords"], n=72), "keywords")
        for name, m in models.items()
    }
    print([f.title for f in found.values()])
    assert found["keywords"].estimate is not None
    assert found["keywords"].estimate < 0.15
    assert found["keywords"].verdict == "warning"
    assert found["context"].estimate == 1
    assert found["context"].verdict == "ok"


@pytest.mark.slow
def test_R13_narrow_brittle_and_eager_each_separate_their_own_case(planted: ModuleType) -> None:
    """Planted on texts of known value: one that knows nothing of prompts unlike its training prompts, one that any change of letters moves, one that seizes on a
    phrase. Each probe has its own above the other two, in 8 worlds, but for one pair in twenty."""
    kinds, draws = ("narrow", "brittle", "eager"), 8
    seen = np.zeros((3, draws, 3))
    for d in range(draws):
        world = planted.make_world(100 + d)
        known = set(world.train.prompts["text"].to_list())
        # prompts end in their situation: those of half of the situations are all that it was trained on
        topics = {p.split()[-1] for p in known}
        inside = set(sorted(topics)[: len(topics) // 2])
        of_train = np.array([world.train.prompts["text"].to_list()[p].split()[-1] for p in world.train.judgments["prompt"].to_list()])
        train = world.train.filter(np.isin(of_train, list(inside)))
        weights = np.random.default_rng(d).normal(size=1 << 12)

        def noise(text: str, w: Any = weights) -> float:
            return float(w[zlib.crc32(text.encode()) % len(w)])

        scorers: dict[str, Callable[[str, str], float]] = {
            "narrow": lambda p, t, w=world, i=inside: w.value(p, t) if p.split()[-1] in i else noise(t.split(".")[0]),
            "brittle": lambda p, t, w=world: w.value(p, t) + 1.2 * noise(t),
            "eager": lambda p, t, w=world: w.value(p, t) + 1.5 * (planted.STOCK[2] in t),
        }  # fmt: skip
        for k, kind in enumerate(kinds):
            found = check_probes(
                each(scorers[kind]),
                judgments=world.held_out,
                train=train,
                families=["typos", "order", "paraphrase", "phrases"],
                n=80,
                seed=d,
                logits=True,
            )
            seen[k, d] = [get(found, name).estimate or 0.0 for name in kinds]
    matrix = [[planted.separation(seen[k, :, p], np.delete(seen, k, 0)[..., p].ravel()) for p in range(3)] for k in range(3)]
    print(np.round(matrix, 2).tolist(), seen.mean(1).round(3).tolist())
    assert all(matrix[k][k] >= 0.95 for k in range(3))


@pytest.mark.slow
def test_each_probe_separates_its_own_planted_reward_from_all_the_others(planted: ModuleType) -> None:
    """Seven rewards, each true quality, noise and a vice of random strength, in 12 worlds (benchmarks/probes.py has 40)."""
    measured = planted.measure(12, seed=1000)
    found, low, high = planted.matrix(measured)
    print(f"{'':15}" + "".join(f"{p:>24}" for p in planted.PROBES))
    for k, kind in enumerate(planted.KINDS):
        print(f"{kind:15}" + "".join(f"{found[k, p]:10.2f} [{low[k, p]:.2f}, {high[k, p]:.2f}]" for p in range(7)))
    diagonal = np.diag(found)
    assert (diagonal >= 0.85).all(), "an AUC over 12 worlds"
    assert diagonal.mean() >= 0.95
    off = np.array([found[k, p] for k in range(6) for p in range(6) if k != p])
    assert 0.4 < off.mean() < 0.6
    assert (np.abs(off - 0.5) < 0.4).all()


# ---------------------------------------------------------------------------------------------- the same again


def test_R114_run_again_the_findings_are_the_same_to_the_byte(feedback: sm.Feedback, tmp_path: Path) -> None:
    some = ("padding", "lists", "typos", "phrases", "sycophancy", "density", "length")
    cache, calls = tmp_path / "scores.jsonl", [0]

    def counted(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        calls[0] += len(responses)
        return [chance(str(p), r) for p, r in zip(prompts, responses, strict=True)]

    first = check_probes(counted, judgments=feedback, train=feedback, families=some, n=12, seed=3, cache=cache, name="m").to_json()
    asked = calls[0]
    assert (
        check_probes(counted, judgments=feedback, train=feedback, families=some, n=12, seed=3)
        .to_json()
        .replace('"model": ""', '"model": "m"')
        == first
    )
    calls[0] = 0
    assert check_probes(counted, judgments=feedback, train=feedback, families=some, n=12, seed=3, cache=cache, name="m").to_json() == first
    assert calls[0] == 0 < asked
    assert check_probes(counted, judgments=feedback, train=feedback, families=some, n=12, seed=4).to_json() != first


@pytest.mark.slow
def test_R114_another_process_gives_the_same(tmp_path: Path) -> None:
    """Python's own hashes differ from process to process; the findings do not."""
    model = tmp_path / "model.py"
    model.write_text("def score(prompts, responses):\n    return [len(set(r)) + 0.01 * len(r) for r in responses]\n", encoding="utf-8")
    out = {
        seed: subprocess.run(
            [sys.executable, "-m", "seamark", "probe", f"python:{model}:score", "--n", "20", "--json"],
            capture_output=True, text=True, check=False, env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert out["1"] == out["2"]
    assert json.loads(out["1"])["findings"]


# ---------------------------------------------------------------------------------------------- what is wrong with a model


@pytest.mark.parametrize("wrong", ["nan", "constant", "count", "raise", "slow"])
def test_a_bad_model_is_a_finding_and_no_crash(wrong: str, feedback: sm.Feedback) -> None:
    def scorer(_prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        if wrong == "raise":
            raise RuntimeError("out of memory")
        if wrong == "slow":
            time.sleep(3)
        return [float("nan") if wrong == "nan" else 1.0] * (len(responses) - (wrong == "count"))

    found = check_probes(scorer, judgments=feedback, families=["padding", "refusal", "phrases"], n=20, timeout_s=0.2)
    assert found[0].code == "scorer"
    assert found[0].verdict == "blocking"
    assert {f.verdict for f in found if f.code.startswith("probe")} == {"not_applicable"}
    assert {"probe/padding", "probe/refusal", "probe/phrases", "probe/narrow", "probe/style-not-substance"} <= {f.code for f in found}


def test_texts_without_a_score_are_left_out_and_counted(feedback: sm.Feedback) -> None:
    found = check_probes(
        each(lambda p, t: float("nan") if "goes without saying" in t else chance(p, t)), judgments=feedback, families=["padding"], n=60
    )
    assert "without scores left out" in (get(found, "padding").reason or "")
    assert found.get("scorer/abstained") is not None


def test_what_cannot_be_told_is_not(feedback: sm.Feedback) -> None:
    found = check_probes(
        each(chance),
        ["a", "a", "b"],
        ["One text. It is short.", "Another. It is short.", "A third one."],
        families=["padding", "density", "length", "phrases"],
    )
    assert {
        get(found, code).verdict
        for code in ("padding", "density", "memorisation", "narrow", "over-confidence", "style-not-substance", "brittle")
    } == {"not_applicable"}
    for wrong, said in (
        ({"n": 5}, "n is 5"), ({"families": ["flattery"]}, "flattery"), ({"prompts": ["a"]}, "responses"),
        ({"prompts": ["a", "a"], "responses": ["x", "x"]}, "two responses"),
    ):  # fmt: skip
        with pytest.raises(InvalidSetting, match=said):
            check_probes(each(chance), **wrong)  # type: ignore[arg-type]
    del feedback


def test_prompts_of_several_messages(feedback: sm.Feedback) -> None:
    prompts, texts = texts_of(feedback)
    turns = [[{"role": "user", "content": p}] for p in prompts]
    seen: set[type] = set()

    def scorer(given: Sequence[Any], responses: Sequence[str]) -> list[float]:
        seen.update(type(p) for p in given)
        return [by_length("", r) for r in responses]

    found = check_probes(scorer, turns, texts, families=["padding"], n=20)
    assert seen == {list}
    assert get(found, "padding").verdict == "warning"


def test_pairs_of_somebody_else() -> None:
    pairs = [MinimalPair("flattery", "given", f"q{i}", f"Answer {i}.", f"q{i}", f"You are clever. Answer {i}.", f"q{i}") for i in range(20)]
    found = check_probes(each(lambda p, t: chance(p, t) + 2.0 * ("clever" in t)), families=["padding"], pairs=pairs, n=20)
    assert get(found, "flattery").verdict == "warning"
    assert get(found, "flattery").details["effect"] == pytest.approx(2, abs=0.2)


# ---------------------------------------------------------------------------------------------- the command


def test_the_command(tmp_path: Path, feedback: sm.Feedback) -> None:
    run = CliRunner().invoke
    model = tmp_path / "model.py"
    model.write_text(
        "import math\ndef length(prompts, responses):\n    return [math.log2(1 + len(r)) for r in responses]\n", encoding="utf-8"
    )
    source, pairs = tmp_path / "prefs.jsonl", tmp_path / "pairs.jsonl"
    feedback.to_jsonl(source)
    pairs.write_text(
        "".join(json.dumps({"family": "yes", "prompt": f"q{i}", "original": "No", "changed": "Yes yes yes"}) + "\n" for i in range(12)),
        encoding="utf-8",
    )
    asked = [
        "probe",
        f"python:{model}:length",
        str(source),
        "--family",
        "padding",
        "--family",
        "sycophancy",
        "--n",
        "20",
        "--pairs",
        str(pairs),
        "--train",
        str(source),
    ]
    done = run(app, [*asked, "--json", "--cache", str(tmp_path / "cache.jsonl")])
    assert done.exit_code == 0, done.output
    found = {f["code"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["probe/padding"]["verdict"] == "warning"
    assert found["probe/yes"]["estimate"] > 0
    assert found["probe/memorisation"]["estimate"] == pytest.approx(0, abs=0.2)
    assert {f["access"] for f in found.values()} == {"black-box"}
    assert (tmp_path / "cache.jsonl").exists()
    assert run(app, [*asked, "--fail-on", "probe/padding:warning"]).exit_code == 1
    assert run(app, [*asked, "--fail-on", "probe/sycophancy:warning"]).exit_code == 0
    for wrong, said in ((["--family", "flattery"], "--family"), (["--n", "3"], "--n"), (["--axis", "a"], "--axis")):
        with pytest.raises(InvalidSetting, match=said):
            run(app, ["probe", f"python:{model}:length", *wrong], catch_exceptions=False)


def test_a_reward_that_abstains_from_most_is_not_called_sound() -> None:
    found = check_probes(lambda _, responses: [float(len(r)) if len(r) % 97 == 0 else None for r in responses], n=20)
    headline = found.get("probe")
    assert headline is not None
    assert headline.verdict == "not_applicable"
