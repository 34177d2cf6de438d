"""Changes do what they say, keep what they should keep, and are the same again from the seed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from seamark.checks import perturbations as p
from seamark.errors import InvalidSetting, UnreadableSource

TEXT = (
    "You don't need a big pan because people often use a small one. Heat the oil first, and keep the color in view. "
    "Perhaps the fish is not ready. Turn it carefully with a flat tool. Children are going to like it!"
)
MARKED = "# Fish\n\nUse **oil** and `salt`.\n\n- heat the pan\n- turn the fish"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def words(text: str) -> list[str]:
    return sorted(re.findall(r"[\w']+", text.lower()))


@pytest.mark.parametrize("family", sorted(p.FAMILIES))
def test_every_change_changes_and_is_the_same_again(family: str) -> None:
    texts = [TEXT, MARKED, "Great question! Fry it. I hope this helps!", "", "Short."]
    for change in p.FAMILIES[family].changes:
        made = [change.apply(text, rng(3)) for text in texts]
        assert made == [change.apply(text, rng(3)) for text in texts]
        assert any(new != old for new, old in zip(made, texts, strict=True)), change.variant
    given = ["q"] * 5, texts, list("abcde"), range(5)
    pairs = p.perturb(family, *given, seed=1)
    assert pairs == p.perturb(family, *given, seed=1)
    assert all(pair.changed != pair.text and pair.changed_prompt == pair.prompt for pair in pairs)
    # a pair does not depend on which others were drawn
    assert p.perturb(family, ["q"], [TEXT], ["a"], [0], seed=1) == [pair for pair in pairs if pair.row == 0]


def test_tricks_keep_what_is_said() -> None:
    """Every word of the text is still there, in its order; what is added is known beforehand."""
    for name in ("padding", "pleasantries", "markdown", "lists", "confidence", "injection"):
        for change in (c for c in p.FAMILIES[name].changes if c.adds):
            new = change.apply(TEXT, rng())
            kept = iter(re.findall(r"[\w']+", new.lower()))
            assert all(word in kept for word in re.findall(r"[\w']+", TEXT.lower())), (name, change.variant)
    padded = p.pad(TEXT, rng())
    added = padded.removeprefix(TEXT).strip()
    assert all(sentence in p.EMPTY_SENTENCES for sentence in p.sentences(added))
    assert len(added) > 0.8 * len(TEXT)


def test_what_is_put_in_can_be_taken_out() -> None:
    assert words(p.strip_markdown(p.embolden(TEXT, rng()), rng())) == sorted([*words(TEXT), "answer"])
    assert p.unlist(p.enlist(TEXT, rng()), rng()) == TEXT
    assert p.drop_pleasantries(p.close_politely(TEXT, rng()), rng()) == TEXT
    assert p.drop_pleasantries("Great question! Fry it. I hope this helps!", rng()) == "Fry it."
    assert p.unhedge("Perhaps it rains. It is, I think, cold.", rng()) == "It rains. It is, cold."
    assert "Perhaps" not in p.unhedge(TEXT, rng())
    assert p.loosen(p.formalise("I don't use it.", rng()), rng()).endswith("I don't use it.")
    pair = p.perturb("lists", ["q"], [MARKED], ["q"], [0])[0]
    assert not pair.adds, "a text with a list has it taken out"


def test_damage_does_damage_and_sameness_keeps_the_length() -> None:
    assert p.blank(TEXT, rng()) == ""
    assert len(p.garble(TEXT, rng())) == len(TEXT)
    assert sum(a == b for a, b in zip(p.garble(TEXT, rng()).split(), TEXT.split(), strict=True)) < 0.5 * len(TEXT.split())
    assert words(p.scramble(TEXT, rng())) == words(TEXT)
    assert TEXT.startswith(p.truncate(TEXT, rng()))
    assert not set(p.sentences(p.evade(TEXT, rng()))) & set(p.sentences(TEXT))
    assert words(p.reorder(TEXT, rng())) == words(TEXT)
    assert p.sentences(p.reorder(TEXT, rng()))[0] == p.sentences(TEXT)[0]
    typed = p.misspell(TEXT, rng())
    assert sorted(typed) == sorted(TEXT)
    assert 0 < sum(a != b for a, b in zip(typed.split(), TEXT.split(), strict=True)) <= 5
    assert "colour" in p.cross_the_ocean(TEXT, rng())
    assert "color" in p.cross_the_ocean(p.cross_the_ocean(TEXT, rng()), rng())
    assert "gonna" in p.speak_plainly(TEXT, rng())
    assert p.paraphrase(TEXT, rng()) != TEXT


def test_halves_differ_in_facts_and_not_in_length() -> None:
    first, whole, padded = p.halves(TEXT, rng()) or ("", "", "")
    assert whole.startswith(first)
    assert padded.startswith(first)
    assert abs(len(padded) - len(whole)) < 60
    assert p.halves("One. Two.", rng()) is None
    assert p.halves(MARKED, rng()) is None


def test_nothing_to_change_makes_no_pair() -> None:
    assert p.perturb("dialect", ["q"], ["Fine."], ["q"], [0]) == []
    assert p.perturb("empty", ["q"], [" "], ["q"], [0]) == []
    assert p.perturb("truncation", ["q"], ["Too short."], ["q"], [0]) == []


# ---------------------------------------------------------------------------------------------- items written by hand


def test_items_are_of_like_length_on_both_sides_and_there_are_enough() -> None:
    bank = p.items()
    assert min(len(bank[name]) for name in ("stances", "comply", "refuse", "keywords")) >= 20
    for family in ("keywords", "obfuscation", "manipulation", "sandbagging", "refusal", "sycophancy"):
        pairs = p.bank_pairs(family)
        one, two = (np.array([len(text) for text in texts]) for texts in ([q.text for q in pairs], [q.changed for q in pairs]))
        assert abs(np.log(two / one)).mean() < 0.4, family
        assert abs(np.log(two / one).mean()) < 0.15, family
        assert len({(q.prompt, q.changed_prompt, q.text, q.changed) for q in pairs}) == len(pairs)
    # a question of either kind gets the same refusals
    refused = {should: sorted(q.changed for q in p.refusal_pairs() if q.variant == should) for should in ("comply", "refuse")}
    assert refused["comply"] == refused["refuse"]


def test_of_stances_only_the_prompt_changes() -> None:
    pairs = p.stance_pairs()
    assert all(q.text == q.changed and q.prompt != q.changed_prompt for q in pairs)
    # that the view is in the prompt, and which, is what differs
    assert all(q.text.partition(".")[0].lower() in str(q.changed_prompt).lower() for q in pairs)
    assert not any(q.text.partition(".")[0].lower() in str(q.prompt).lower() for q in pairs)
    assert {q.variant for q in pairs} == {"right", "wrong"}


def test_keywords_are_where_harm_is_not() -> None:
    for item in p.items()["keywords"]:
        assert item["word"] in item["harmless"]
        assert item["word"] not in item["harmful"]


# ---------------------------------------------------------------------------------------------- pairs of somebody else


def test_pairs_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    row = {"family": "flattery", "prompt": "q", "original": "a", "changed": "b"}
    file.write_text(json.dumps(row) + "\n\n" + json.dumps(row | {"changed_prompt": "r"}) + "\n", encoding="utf-8")
    one, two = p.read_pairs(file)
    assert (one.family, one.prompt, one.text, one.changed_prompt, one.changed) == ("flattery", "q", "a", "q", "b")
    assert two.changed_prompt == "r"
    file.write_text(json.dumps(row | {"changed": "b\u2028c\x85"}, ensure_ascii=False) + "\r\n", encoding="utf-8", newline="")
    assert [pair.changed for pair in p.read_pairs(file)] == ["b\u2028c\x85"], "other ends of line are text"
    for wrong, said in (
        ("{", "line 1 is no minimal pair"), ("[1]", "line 1 is no minimal pair"), (json.dumps({"family": "x"}), "line 1 is no minimal pair"),
        (json.dumps(row | {"changed": 3}), "no text"), (json.dumps(row | {"family": "padding"}), "the family 'padding'"),
        (json.dumps(row | {"family": "A b"}), "the family 'A b'"),
    ):  # fmt: skip
        file.write_text(wrong, encoding="utf-8")
        with pytest.raises(UnreadableSource, match=said):
            p.read_pairs(file)
    with pytest.raises(UnreadableSource):
        p.read_pairs(tmp_path / "none.jsonl")


def test_families_have_names() -> None:
    assert p.known_families(["refusal", "padding"]) == ("padding", "refusal")
    assert set(p.known_families(None)) == {*p.FAMILIES, *p.BANKS, *p.AS_THEY_ARE}
    with pytest.raises(InvalidSetting, match="flattery"):
        p.known_families(["flattery"])
