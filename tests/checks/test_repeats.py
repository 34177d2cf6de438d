"""Repeated judgments, copies, ids and leakage: planted defects are found, clean data is not flagged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seamark.checks import repeats
from seamark.checks.repeats import (
    check_duplicates,
    check_identical_pairs,
    check_ids,
    check_leakage,
    check_near_duplicates,
    folded,
    near_duplicates,
    text_keys,
)
from seamark.records import Feedback


def words(rng: np.random.Generator, n: int) -> list[str]:
    return [f"{w}" for w in rng.choice([f"word{i}" for i in range(400)], n)]


def text_pairs(prompts: list[str], texts: list[list[str]], **more: list[object]) -> Feedback:
    n = len(texts)
    return Feedback.from_columns({"kind": ["pair"] * n, "prompt": prompts, "texts": texts, "outcome": ["left"] * n, **more})


# ------------------------------------------------------------------------------------ texts


def shingles(text: str) -> set[bytes]:
    data = text.encode()
    return {data[i : i + 12] for i in range(len(data) - 11)}


def shingle_jaccard(a: str, b: str) -> float:
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


def test_near_duplicates_against_every_pair():
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(60):
        base = words(rng, int(rng.integers(30, 120)))
        texts.append(" ".join(base))
        for changes in rng.integers(1, 12, 2):  # some changes keep the similarity above 0.9, some do not
            changed = base.copy()
            for position in rng.integers(0, len(base), changes):
                changed[position] = "other"
            texts.append(" ".join(changed))
    texts = list(dict.fromkeys(texts))
    sets = [shingles(t) for t in texts]
    pairs = combinations(range(len(texts)), 2)
    truth = {(i, j): s for i, j in pairs if (s := len(sets[i] & sets[j]) / len(sets[i] | sets[j])) >= 0.9}
    first, second, similar = near_duplicates(texts)
    found = dict(zip(zip(first.tolist(), second.tolist(), strict=True), similar.tolist(), strict=True))
    assert len(truth) > 10
    assert set(found) <= set(truth)
    for pair, value in found.items():
        assert value == pytest.approx(truth[pair])
    assert len(found) >= 0.95 * len(truth)


def test_near_duplicates_of_nothing_and_of_short_texts():
    for texts in ([], ["a"], ["a", "a", "b"], ["", "short", "shorter"], ["twelve bytes", "twelve bytes"]):
        assert len(near_duplicates(texts)[0]) == 0


def test_near_duplicates_across_chunks(monkeypatch):
    rng = np.random.default_rng(1)
    base = " ".join(words(rng, 200))
    texts = [base, *(" ".join(words(rng, 200)) for _ in range(20)), base + " more"]
    monkeypatch.setattr(repeats, "_BYTES_EACH", 1500)
    assert [p.tolist() for p in near_duplicates(texts)[:2]] in ([[0], [21]], [[], []])  # cut texts are equal, not near
    monkeypatch.undo()
    first, second, similar = near_duplicates(texts)
    assert (first.tolist(), second.tolist()) == ([0], [21])
    assert similar[0] == pytest.approx(shingle_jaccard(texts[0], texts[21]))


def test_text_keys_ignore_case_and_white_space_only():
    series = pl.Series(["A b\n", "ab", " a\tB ", "a.b", None, "ä", "Ä"])
    keys = text_keys(series)
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert keys[5] == keys[6] != keys[0]
    assert keys[4] == 0
    assert folded(series).to_list()[0] == "ab"
    assert len(text_keys(pl.Series([], dtype=pl.String))) == 0


def test_planted_copies_and_near_copies():
    rng = np.random.default_rng(2)
    texts = [[" ".join(words(rng, 60)), " ".join(words(rng, 60))] for _ in range(50)]
    prompts = [f"p{i}" for i in range(50)]
    assert check_near_duplicates(text_pairs(prompts, texts)).verdict == "ok"
    texts[1][0] = texts[0][0].upper()  # a copy
    texts[2][1] = texts[3][1] + " end"  # a near-copy
    texts[4] = [texts[5][0], texts[4][1]]  # a copy under another prompt
    finding = check_near_duplicates(text_pairs(prompts, texts))
    assert finding.details["n_copies"] == 4
    assert finding.details["n_near"] == 2
    assert finding.estimate == pytest.approx(6 / 100)
    assert finding.verdict == "warning"
    ids = text_pairs(prompts, texts).responses
    near = {ids.filter(pl.col("id") == finding.details["near"][0][side])["text"][0] for side in "ab"}
    assert near == {texts[2][1], texts[3][1]}


def test_near_copies_in_a_sample(monkeypatch):
    rng = np.random.default_rng(3)
    texts = [[" ".join(words(rng, 20)), " ".join(words(rng, 20))] for _ in range(50)]
    monkeypatch.setattr(repeats, "_TEXTS", 40)
    finding = check_near_duplicates(text_pairs([f"p{i}" for i in range(50)], texts))
    assert finding.n == 40
    assert "underestimate" in (finding.reason or "")


# ------------------------------------------------------------------------------------ judgments


def test_planted_duplicates():
    columns = {
        "kind": ["pair"] * 6,
        "ids": [["a", "b"], ["b", "a"], ["a", "b"], ["a", "b"], ["a", "c"], ["a", "b"]],
        "outcome": ["left", "right", "right", "left", "left", "left"],
        "rater": ["r", "r", "r", "s", "r", "r"],
    }
    finding = check_duplicates(Feedback.from_columns(columns))
    assert finding.details["n_repeats"] == 2  # the second (the other way round) and the last
    assert [e["judgment"] for e in finding.details["examples"]] == [1, 5]
    assert finding.verdict == "warning"
    ordered = check_duplicates(Feedback.from_columns({**columns, "order_known": [True] * 6}))
    assert (ordered.details["n_repeats"], ordered.details["n_asked_again"]) == (1, 1)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    timed = check_duplicates(Feedback.from_columns({**columns, "time": [start + timedelta(hours=i) for i in range(6)]}))
    assert (timed.details["n_repeats"], timed.details["n_asked_again"]) == (0, 2)
    assert timed.verdict == "ok"
    wrote = check_duplicates(Feedback.from_columns({**columns, "models": [[f"m{i}", "n"] for i in range(6)]}))
    assert (wrote.details["n_repeats"], wrote.details["n_asked_again"]) == (0, 2)


@pytest.mark.parametrize("outcomes", [["left", "left"], ["right", "right"], ["tie", "left"]])
def test_opposite_orders_with_the_same_word_are_not_repeats(outcomes):
    """First wins in both orders: two different answers, also when only one of the two words occurs."""
    rows = {"kind": ["pair"] * 2, "ids": [["a", "b"], ["b", "a"]], "outcome": outcomes, "rater": ["r", "r"]}
    assert check_duplicates(Feedback.from_columns(rows)).details["n_repeats"] == 0


def test_duplicates_of_other_kinds_compare_the_whole_answer():
    n = 8
    feedback = Feedback.from_columns(
        {
            "kind": ["rating", "rating", "rating", "choice", "choice", "choice", "ranking", "ranking"],
            "ids": [["a"], ["a"], ["a"], ["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"], ["a", "b"], ["a", "b"]],
            "outcome": ["answered"] * n,
            "rating": [1.0, 2.0, 1.0, *[None] * 5],
            "best": [None, None, None, 0, 2, 2, None, None],
            "ranks": [*[None] * 6, [1, 2], [2, 1]],
            "rater": ["r"] * n,
        }
    )
    assert check_duplicates(feedback).details["n_repeats"] == 2  # the third rating, the second choice


def test_duplicates_need_raters():
    feedback = Feedback.from_columns({"kind": ["pair"] * 2, "ids": [["a", "b"]] * 2, "outcome": ["left"] * 2})
    assert check_duplicates(feedback).verdict == "not_applicable"


def test_identical_pairs():
    texts = [["same", "same"], ["One two", "one  TWO\n"], ["one", "two"], ["x", "y"]]
    finding = check_identical_pairs(text_pairs(["p", "q", "p", "q"], texts))
    assert (finding.details["n_exact"], finding.details["n_same"]) == (1, 2)
    assert finding.verdict == "warning"
    assert check_identical_pairs(text_pairs(["p"], [["one", "two"]])).verdict == "ok"
    ids = Feedback.from_columns({"kind": ["pair"] * 2, "ids": [["a", "a"], ["a", "b"]], "outcome": ["left"] * 2})
    assert check_identical_pairs(ids).details["n_same"] == 1
    mixed = Feedback.from_columns(
        {
            "kind": ["choice", "pair"],
            "prompt": ["p", "p"],
            "texts": [["a", "b", "A"], ["a", "b"]],
            "outcome": ["answered", "left"],
            "best": [0, None],
        }
    )
    assert (check_identical_pairs(mixed).details["n_exact"], check_identical_pairs(mixed).details["n_same"]) == (0, 1)
    rated = Feedback.from_columns({"kind": ["rating"], "ids": [["a"]], "outcome": ["answered"], "rating": [1.0]})
    assert check_identical_pairs(rated).verdict == "not_applicable"


def test_ukp_identical_pairs(real_data: Path):
    table = pl.read_parquet(real_data / "ukp_convarg" / "pairs.parquet")
    texts = [list(t) for t in zip(table["arg1"], table["arg2"], strict=True)]
    finding = check_identical_pairs(text_pairs(table["side"].to_list(), texts))
    assert finding.details["n_exact"] == sum(a == b for a, b in texts)
    assert finding.details["n_same"] == sum("".join(a.lower().split()) == "".join(b.lower().split()) for a, b in texts)


def test_ids_that_differ_by_case_or_unicode_form():
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * 4,
            "prompt": ["p"] * 4,
            "texts": [["a", "b"]] * 4,
            "outcome": ["left"] * 4,
            "rater": ["Ann", "ann ", "caf\u00e9", "cafe\u0301"],
            "models": [["GPT-4", "gpt-4"]] * 4,
            "axis": ["x", "x", "y", "y"],
        }
    )
    finding = check_ids(feedback)
    assert finding.verdict == "notice"
    assert {(g["field"], len(g["ids"])) for g in finding.details["groups"]} == {("raters", 2), ("models", 2)}
    assert finding.estimate == 3
    clean = text_pairs(["p"], [["a", "b"]], rater=["r1"])
    assert check_ids(clean).verdict == "ok"


# ------------------------------------------------------------------------------------ leakage


def corpus(rng: np.random.Generator, n: int) -> tuple[list[str], list[list[str]]]:
    return [" ".join(words(rng, 25)) for _ in range(n)], [[" ".join(words(rng, 30)) for _ in range(2)] for _ in range(n)]


def test_clean_split_is_not_flagged():
    prompts, texts = corpus(np.random.default_rng(0), 200)
    train, test = text_pairs(prompts, texts).split(by="prompt")
    findings = check_leakage(train, test)
    assert {f.code for f in findings} == {"leakage", "leakage/prompts", "leakage/near-prompts", "leakage/responses"}
    assert {f.verdict for f in findings} == {"ok"}
    assert all(f.estimate == 0 for f in findings)


def test_planted_leakage():
    rng = np.random.default_rng(1)
    prompts, texts = corpus(rng, 200)
    train = text_pairs(prompts[:150], texts[:150])
    held_prompts, held_texts = prompts[150:], texts[150:]
    held_prompts[0], held_texts[0] = prompts[0].upper(), texts[0][::-1]  # the same question, in disguise
    held_prompts[1] = prompts[1] + "  "  # the same prompt, other responses
    held_prompts[2] = prompts[2] + " please"  # a near-copy
    held_texts[3] = [texts[3][0], held_texts[3][1]]  # a known response
    held = text_pairs(held_prompts, held_texts)
    found = {f.code: f for f in check_leakage(train, held)}
    assert found["leakage"].estimate == pytest.approx(1 / 50)
    assert found["leakage"].verdict == "blocking"
    assert found["leakage/prompts"].estimate == pytest.approx(2 / 50)
    assert found["leakage/prompts"].verdict == "warning"
    assert found["leakage/near-prompts"].estimate == pytest.approx(1 / 50)
    assert found["leakage/responses"].estimate == pytest.approx(3 / 100)
    assert found["leakage/responses"].details["n_judgments"] == 2


def test_little_leakage_is_a_notice():
    prompts, texts = corpus(np.random.default_rng(2), 150)
    train = text_pairs([*prompts[:20], prompts[149]], [*texts[:20], texts[149]])
    held = text_pairs(prompts[20:], texts[20:])
    assert check_leakage(train, held)[0].verdict == "notice"
    assert check_leakage(train, held)[0].estimate == pytest.approx(1 / 130)


def test_leakage_not_applicable():
    feedback = Feedback.from_columns({"kind": ["pair"] * 4, "ids": [["a", "b"]] * 4, "outcome": ["left"] * 4})
    assert [f.verdict for f in check_leakage(feedback, None)] == ["not_applicable"]
    assert {f.verdict for f in check_leakage(feedback, feedback)} == {"not_applicable"}


def test_ratings_on_another_axis_are_no_leakage():
    columns = {
        "kind": ["rating"] * 3,
        "prompt": ["p"] * 3,
        "texts": [["a"], ["b"], ["c"]],
        "outcome": ["answered"] * 3,
        "rating": [1.0] * 3,
    }
    train = Feedback.from_columns({**columns, "axis": ["x"] * 3})
    held = Feedback.from_columns({**columns, "axis": ["x", "y", "y"]})
    assert check_leakage(train, held)[0].estimate == pytest.approx(1 / 3)
