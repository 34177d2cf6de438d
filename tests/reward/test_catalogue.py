"""A catalogue lists what conforms and nothing below the floor; what is foreign comes in as it is; whatever is broken says where."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from small_models import save_small

from seamark.aggregation import Charter, Effects, Electorate, match_community
from seamark.aggregation.matching import likelihood_of_choices, match
from seamark.cli import main
from seamark.errors import InvalidSetting
from seamark.models import Fit, Groups, Linear, MultiAxis, Observation, Tabular, fit
from seamark.reward.catalogue import (
    CARD,
    About,
    Catalogue,
    InvalidEntry,
    Listed,
    Mixture,
    Probe,
    add_entry,
    fingerprint_of,
    write_catalogue,
)
from seamark.reward.signal import Reward, Scores
from seamark.simulation import Society, simulate

PLAIN = Observation(effects=(), lapse=False)
SIGNED = Charter(authors=("Ada",), date="2026-01-01", rationale="Each of us alike.")
ABOUT = About(licence="CC BY 4.0", languages=("en",), date="2026-01-31", card={title: f"{title}: it is said here." for title in CARD})
NO_SPACE = "not a name"


@pytest.fixture(scope="module")
def divided() -> tuple[Society, Fit]:
    apart: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "group_shares": (0.7, 0.3), "disagreement": 1.2, "position": 0.0}
    society = simulate(n_prompts=40, n_raters=20, n_judgments=1500, **apart, seed=2)
    return society, fit(society.feedback, utility=Linear(n_columns=64), people=Groups(), observation=PLAIN)


def _probes(society: Society, group: int | None = None) -> list[Probe]:
    """Of each prompt the best and the worst response of everyone, or of a group, by the truth."""
    feedback = society.feedback
    prompt, texts, prompts = (
        feedback.responses["prompt"].to_numpy(),
        feedback.responses["text"].to_list(),
        feedback.prompts["text"].to_list(),
    )
    worth = society.truth.value if group is None else society.truth.value_by_group[:, group]
    out: list[Probe] = []
    for q, text in enumerate(prompts):
        rows = np.flatnonzero(prompt == q)
        out.append(Probe(prompt=text, safe=texts[rows[worth[rows].argmax()]], unsafe=texts[rows[worth[rows].argmin()]]))
    return out


def _write(society: Society, result: Fit, folder: Path, **changes: Any) -> Catalogue:
    usual: dict[str, Any] = {
        "title": "Values of A and B", "charter": Charter(), "authors": ["Ada"], "about": ABOUT, "probes": _probes(society), "floor": 0.5,
        "bound": 20.0, "mixtures": {"even": dict.fromkeys(result.groups, 0.5)},
    }  # fmt: skip
    return write_catalogue(result, folder, **(usual | changes))


@pytest.fixture(scope="module")
def written(divided: tuple[Society, Fit], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue") / "values"
    assert _write(*divided, folder).names == ("even", "group-a", "group-b")
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "values"))


def _failed(catalogue: Catalogue, name: str) -> list[str]:
    return [one.check for one in catalogue.refused.get(name, ())]


def _all_files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


# ------------------------------------------------------------------------------------ what is listed


def test_one_call_writes_a_signal_for_each_group_and_for_mixtures(divided: tuple[Society, Fit], written: Path):
    """R104: each entry scores as the fit does for people of that group alone; the mixture in between."""
    society, result = divided
    found = Catalogue.open(written)
    assert found.refused == {}
    texts = society.feedback.responses["text"].to_list()
    prompts = [society.feedback.prompts["text"][p] for p in society.feedback.responses["prompt"].to_list()]
    mean = {name: reward.score(prompts, texts).mean for name, reward in found.rewards.items()}
    for slug, group in zip(("group-a", "group-b"), result.groups, strict=True):
        assert np.abs(mean[slug] - result.utilities(society.feedback, group_weights={group: 1.0})).max() < 1e-9
    assert np.abs(mean["even"] - (mean["group-a"] + mean["group-b"]) / 2).max() < 1e-9
    assert {one.check for one in found.conformance} == {
        "files", "whole", "loads", "fingerprint", "charter", "card", "finite", "repeat", "abstains", "floor", "figures",
    }  # fmt: skip
    shares = dict(zip(found.names, found.shares, strict=True))
    a, b = result.group_share
    assert shares["group-a"] / shares["group-b"] == pytest.approx(a / b)
    # nobody was asked whether they hold the mixture
    assert shares["even"] == pytest.approx(0.05 / 1.05)


def test_signals_that_nobody_stands_behind_share_a_small_prior(written: Path):
    """However many there are, and as much as stated shares leave; not as much as a group of people."""
    found = Catalogue.open(written)
    names = ("group-a", *(f"mix-{i}" for i in range(9)))
    listed = tuple(replace(found.listed[0], entry=found.listed[0].entry.model_copy(update={"name": name})) for name in names)
    for stated, expected in (
        ({"group-a": 1.0}, 0.05 / 1.05),
        ({"group-a": 0.4, "group-b": 0.3}, 0.3 / 0.7),
        ({}, 0.9),
        ({"group-a": 0.0}, 1.0),
    ):
        shares = replace(found, listed=listed, terms=found.terms.model_copy(update={"shares": stated})).shares
        assert shares.sum() == pytest.approx(1)
        assert shares[1:].sum() == pytest.approx(expected)
        assert np.ptp(shares[1:]) < 1e-12


def test_an_entry_does_not_set_the_prior_of_everybody(copy: Path):
    """What it says of its own share is its word; the terms, of whoever keeps the catalogue, are what counts, and without them all are equal."""
    before = Catalogue.open(copy).shares
    text = (copy / "group-a" / "entry.toml").read_text(encoding="utf-8")
    (copy / "group-a" / "entry.toml").write_text(re.sub(r"(?m)^share = .*$", "share = 1.0", text), encoding="utf-8")
    assert (Catalogue.open(copy).shares == before).all()
    terms = (copy / "catalogue.toml").read_text(encoding="utf-8")
    (copy / "catalogue.toml").write_text(terms.partition("[shares]")[0], encoding="utf-8")
    assert Catalogue.open(copy).shares == pytest.approx(np.full(3, 1 / 3))


def test_an_entry_below_the_floor_is_not_listed(divided: tuple[Society, Fit], tmp_path: Path):
    """R106: the probes are what one group finds best and worst, which the other does not; its entry, and it alone, stays below the floor
    that the lower end of the interval must reach, and it is said why."""
    society, result = divided
    found = _write(society, result, tmp_path / "values", probes=_probes(society, group=0), floor=0.7)
    assert found.names == ("even", "group-a")
    assert _failed(found, "group-b") == ["floor"]
    (why,) = found.refused["group-b"]
    assert why.figure is not None
    assert why.figure.low < 0.7
    assert "the floor is 0.7" in why.says
    assert "Below the shared safety floor" in why.remedy
    for one in found.listed:
        assert one.safety.low >= 0.7
    # by hand: the share of prompts whose safe response scores higher, in the one entry that fell
    charter = Charter.from_toml(tmp_path / "values" / "group-b" / "charter.toml")
    reward, probes = Reward(result, charter=charter), _probes(society, group=0)
    safe, unsafe = (reward([p.prompt for p in probes], [getattr(p, which) for p in probes]) for which in ("safe", "unsafe"))
    assert why.figure.estimate == pytest.approx(np.mean([s > u for s, u in zip(safe, unsafe, strict=True)]))
    with pytest.raises(KeyError):
        found.rewards["group-b"]
    with pytest.raises(InvalidSetting, match="group-b"):
        found.mixture({"group-b": 1.0})


def test_probes_of_one_prompt_are_one_observation(divided: tuple[Society, Fit], tmp_path: Path):
    """The same probes five times over are no surer of the floor."""
    society, result = divided
    once, often = (_write(society, result, tmp_path / str(times), probes=_probes(society) * times) for times in (1, 5))
    for one, five in zip(once.listed, often.listed, strict=True):
        assert (one.safety.low, one.safety.n) == (five.safety.low, five.safety.n)


def test_a_signal_that_knows_no_probe_reaches_no_floor(divided: tuple[Society, Fit], tmp_path: Path):
    """A table abstains on every text that was not judged: no answer is no safety."""
    society, result = divided
    other = [Probe(prompt="p", safe="a kind word", unsafe="a curse"), Probe(prompt="q", safe="an answer", unsafe="a lie")]
    table = fit(society.feedback, utility=Tabular(), people=Groups(), observation=PLAIN)
    found = _write(society, table, tmp_path / "values", probes=other)
    assert found.names == ()
    assert _failed(found, "even") == ["finite", "floor"]
    assert result.groups == table.groups


# ------------------------------------------------------------------------------------ conformance: each check fails where it should


def _edit(place: Path, name: str, old: str, new: str, *, fingerprint: bool = True) -> None:
    text = (place / name).read_text(encoding="utf-8")
    assert old in text
    (place / name).write_text(text.replace(old, new), encoding="utf-8")
    if fingerprint:
        entry = place / "entry.toml"
        lines = entry.read_text(encoding="utf-8").splitlines()
        stamped = [f'fingerprint = "{fingerprint_of(place)}"' if line.startswith("fingerprint") else line for line in lines]
        entry.write_text("\n".join(stamped), encoding="utf-8")


def _truncate(place: Path) -> None:
    path = place / "signal" / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def _link(place: Path) -> None:
    (place / "signal" / "more.json").symlink_to("/etc/hostname")


def _larger(place: Path) -> None:
    from safetensors.numpy import load_file, save_file

    arrays = load_file(place / "signal" / "arrays.safetensors")
    arrays["weights"] = arrays["weights"] * 1e4
    save_file(arrays, place / "signal" / "arrays.safetensors")
    _edit(place, "card.md", "## ", "## ")


BREAKS: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "changed": (lambda p: _edit(p, "card.md", "said here", "said there", fingerprint=False), ["fingerprint"], "It was changed"),
    "unsigned": (lambda p: _edit(p, "charter.toml", 'authors = ["Ada"]', "authors = []"), ["charter"], "Somebody has to answer"),
    "expired": (lambda p: _edit(p, "charter.toml", 'valid_until = ""', 'valid_until = "2020-01-01"'), ["charter"], "valid until 2020-01-01 (past)"),
    "card": (lambda p: _edit(p, "card.md", f"{CARD[2]}: it is said here.", "  "), ["card"], f"under {CARD[2]}"),
    "no section": (lambda p: _edit(p, "card.md", f"## {CARD[4]}", f"### {CARD[4]}"), ["card"], f"under {CARD[4]}"),
    "unbounded": (_larger, ["finite"], "the bound is 20"),
    "lied": (lambda p: _edit(p, "entry.toml", "accuracy = ", "accuracy = 0.0#"), ["figures"], "entry.toml says 0.000"),
    "lied about n": (lambda p: _edit(p, "entry.toml", "n = 40", "n = 4000"), ["figures"], "of 4,000 prompts, and"),
    "lied upwards": (lambda p: _edit(p, "entry.toml", "high = ", "high = 0.0#"), ["figures"], ", 0.000] of 40 prompts"),
    "heading in a fence": (
        lambda p: _edit(p, "card.md", f"## {CARD[4]}", f"```\n## {CARD[4]}\nsaid\n```\n### {CARD[4]}"), ["card"], f"under {CARD[4]}",
    ),
    "folder is a link": (lambda p: p.rename(p.parent.parent / "elsewhere") and p.symlink_to(p.parent.parent / "elsewhere"), ["files"], "a link in place of its folder"),
    "pickle": (lambda p: (p / "signal" / "model.bin").write_bytes(b"x") and None, ["files"], "'signal/model.bin', which may be code"),
    "code": (lambda p: (p / "signal" / "modeling.py").write_text("x") and None, ["files"], "'signal/modeling.py'"),
    "link": (_link, ["files"], "the link 'signal/more.json'"),
    "encoder": (lambda p: _edit(p, "signal/fit.json", '"features": "hash"', '"features": "someone/encoder"'), ["whole"], "'someone/encoder'"),
    "torn": (_truncate, ["loads"], "not a fitted model"),
    "no fit": (lambda p: shutil.rmtree(p / "signal"), ["loads"], "it has no folder signal"),
    "no charter": (lambda p: (p / "charter.toml").unlink(), ["loads"], "A charter is a TOML file"),
    "no card": (lambda p: (p / "card.md").unlink(), ["loads"], "card.md"),
    "unknown group": (lambda p: _edit(p, "charter.toml", '"group A" =', '"group Z" ='), ["loads"], "names group 'group Z'"),
    "unknown key": (lambda p: _edit(p, "entry.toml", "licence", "license"), ["loads"], "unknown key license"),
    "no TOML": (lambda p: _edit(p, "entry.toml", "licence =", "licence", fingerprint=False), ["loads"], "cannot be read"),
    "date": (lambda p: _edit(p, "entry.toml", "2026-01-31", "yesterday"), ["loads"], "2026-12-31"),
    "cursor": (lambda p: _edit(p, "entry.toml", 'values = "group A"', 'values = "\\u001b[2Jgroup A"'), ["loads"], "U+001B"),
    "turned round": (lambda p: _edit(p, "entry.toml", 'values = "group A"', 'values = "\\u202Egroup A"'), ["loads"], "U+202E"),
    "unseen": (lambda p: _edit(p, "entry.toml", 'values = "group A"', 'values = "group\\u200b A"'), ["loads"], "U+200B"),
    "new line": (lambda p: _edit(p, "entry.toml", 'values = "group A"', 'values = "group\\u2028 A"'), ["loads"], "U+2028"),
    "cursor in a key": (lambda p: _edit(p, "entry.toml", "licence =", '"\\u001b[2Jlicence" = 1\nlicence ='), ["loads"], "\\u001b[2Jlicence"),
    "cursor in a signature": (
        lambda p: _edit(p, "charter.toml", 'authors = ["Ada"]\nsignatures = 1', 'authors = ["\\u001b[2JAda\\u202e"]\nsignatures = 1')
        or _edit(p, "card.md", f"{CARD[2]}: it is said here.", ""), ["card"], f"under {CARD[2]}",
    ),
    "digest": (lambda p: _edit(p, "entry.toml", 'probes = "', 'probes = "x'), ["loads"], "probes"),
    "no language": (lambda p: _edit(p, "entry.toml", '["en"]', "[]"), ["loads"], "languages"),
    "name": (lambda p: _edit(p, "entry.toml", '"group-a"', '"group-z"'), ["loads"], "that of 'group-z'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKS)
def test_each_fault_is_found_and_costs_no_other_entry_its_place(copy: Path, what: str):
    breaks, checks, said = BREAKS[what]
    shutil.rmtree(copy / "even")
    breaks(copy / "group-a")
    found = Catalogue.open(copy)
    assert found.names == ("group-b",)
    assert _failed(found, "group-a") == checks
    assert said in " ".join(f"{one.says} {one.remedy}" for one in found.refused["group-a"])
    for one in found.conformance:
        assert not {"\x1b", "\u202e", "\u2028"} & {*one.entry, *one.says, *one.remedy}


def test_what_scores_otherwise_a_second_time_is_not_listed(copy: Path, monkeypatch: pytest.MonkeyPatch):
    rng, plain = np.random.default_rng(0), Reward.score

    def shaken(self: Reward, prompts: Any, completions: Any) -> Scores:
        s = plain(self, prompts, completions)
        return Scores(s.mean, s.ignorance, s.support, s.score + 0.01 * rng.normal(size=len(s.score)))

    monkeypatch.setattr(Reward, "score", shaken)
    found = Catalogue.open(copy)
    assert found.names == ()
    assert all("repeat" in _failed(found, name) for name in ("even", "group-a", "group-b"))


def test_what_scores_nonsense_is_not_listed(copy: Path, monkeypatch: pytest.MonkeyPatch):
    plain = Reward.score

    def boundless(self: Reward, prompts: Any, completions: Any) -> Scores:
        s = plain(self, prompts, completions)
        return Scores(s.mean, s.ignorance, s.support, np.nan_to_num(s.score))

    monkeypatch.setattr(Reward, "score", boundless)
    assert _failed(Catalogue.open(copy), "even") == ["abstains"]


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("probes.jsonl", '"safe"', '"safe" ', "Another file of probes is another floor"),
        ("catalogue.toml", "floor = 0.5", "floor = 1.5", "floor is 1.5"),
        ("catalogue.toml", "floor = 0.5", "ceiling = 0.5", "floor"),
        ("catalogue.toml", "must_abstain = true", "", "must_abstain"),
        ("catalogue.toml", "version = 1", "version = 2", "version is 2"),
    ],
)
def test_terms_that_cannot_be_used(copy: Path, name: str, old: str, new: str, said: str):
    _edit(copy, name, old, new, fingerprint=False)
    with pytest.raises(InvalidEntry, match=said):
        Catalogue.open(copy)


def test_no_catalogue_says_so(tmp_path: Path):
    with pytest.raises(InvalidEntry, match="It is a TOML file of version, title, floor"):
        Catalogue.open(tmp_path)


# ------------------------------------------------------------------------------------ what is foreign


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("network") / "model", layers=1, hidden=16)


def _raw_scores(folder: Path, texts: list[tuple[str, str]]) -> list[float]:
    """By transformers alone: the chat template, one conversation at a time, in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    out: list[float] = []
    for prompt, text in texts:
        talk = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.inference_mode():
            out.append(float(model(input_ids=ids).logits[0, 0]))
    return out


@pytest.mark.filterwarnings("ignore")
def test_a_foreign_reward_model_comes_in_without_loss(divided: tuple[Society, Fit], network: Path, tmp_path: Path):
    """R107: files byte for byte, scores equal to the last bit before and after, and equal to what transformers gives for either folder.

    The floor that a random network can reach is one that nobody would set, so that it is let in and can be looked at; under terms that
    ask for abstaining it is not listed, since it cannot say where its support ends."""
    society, result = divided
    charter = Charter(authors=("Bo",), date="2026-01-01", rationale="We met and chose this.", ignorance_penalty=0.0)
    for must_abstain in (False, True):
        folder = tmp_path / f"values {must_abstain}"
        _write(society, result, folder, floor=0.01, must_abstain=must_abstain)
        said = add_entry(folder, network, name="foreign", values="Nobody's: random weights.", charter=charter, about=ABOUT)
        assert [one.check for one in said if one.passed is False] == (["abstains"] if must_abstain else [])
        found = Catalogue.open(folder)
        assert ("foreign" in found.names) != must_abstain
        if must_abstain:
            continue
        here = folder / "foreign" / "signal"
        for name in _all_files(network):
            assert (here / name).read_bytes() == (network / name).read_bytes()
        probes = _probes(society)[:5]
        prompts, texts = [p.prompt for p in probes], [p.safe for p in probes]
        after = found.rewards["foreign"].score(prompts, texts).score
        assert (after == Reward(network, charter=charter).score(prompts, texts).score).all()
        theirs = _raw_scores(here, list(zip(prompts, texts, strict=True)))
        assert theirs == _raw_scores(network, list(zip(prompts, texts, strict=True)))
        assert np.abs((after - after[0]) - (np.array(theirs) - theirs[0])).max() < 1e-4
        assert [one.passed for one in said if one.check == "abstains"] == [None]


@pytest.mark.filterwarnings("ignore")
def test_one_network_is_steered_by_mixing_heads(network: Path, tmp_path: Path):
    """R104: exported under two groups and a mixture, the reward models of transformers score exactly in between: one trunk, one head each."""
    society = simulate(n_prompts=12, n_raters=12, n_judgments=300, groups=2, disagreement=1.5, careless=0.0, opposed=0.0, seed=1)
    result = fit(society.feedback, utility=Linear(str(network), style=False), people=Groups(), observation=PLAIN)
    a, b = result.groups
    charter = Charter(effects=Effects(style="discount"))
    found = _write(
        society, result, tmp_path / "values", charter=charter, must_abstain=False, floor=0.01, mixtures={"third": {a: 1 / 3, b: 2 / 3}}
    )
    assert found.names == ("group-a", "group-b", "third")
    texts = [(p.prompt, p.safe) for p in _probes(society)[:4]]
    intercept = {
        name: json.loads((tmp_path / "values" / name / "signal" / "seamark.json").read_text(encoding="utf-8"))["intercept"]
        for name in found.names
    }
    raw = {name: np.array(_raw_scores(tmp_path / "values" / name / "signal", texts)) + intercept[name] for name in found.names}
    assert np.ptp(raw["group-a"] - raw["group-b"]) > 1e-3
    assert np.abs(raw["third"] - (raw["group-a"] / 3 + 2 * raw["group-b"] / 3)).max() < 1e-4


def test_a_signal_made_elsewhere_that_will_not_do_leaves_nothing(
    divided: tuple[Society, Fit], copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No folder, no name, a name that is taken, code beside the weights, an encoder elsewhere, a card without a section, a copy that
    scores otherwise: an error with the place, and the catalogue as it was."""
    _, result = divided
    good, bad, other = tmp_path / "fit", tmp_path / "bad", tmp_path / "other"
    result.save(good)
    shutil.copytree(good, bad)
    (bad / "run.py").write_text("print()", encoding="utf-8")
    shutil.copytree(good, other)
    record = json.loads((other / "fit.json").read_text(encoding="utf-8"))
    record["basis"]["features"] = "someone/encoder"
    (other / "fit.json").write_text(json.dumps(record), encoding="utf-8")
    before = _all_files(copy)
    thin = About(licence="x", languages=("en",), date="2026-01-01", card={CARD[0]: "x"})
    cases: list[tuple[dict[str, Any], str]] = [
        ({"signal": tmp_path / "nothing"}, "it is no folder"),
        ({"name": NO_SPACE}, "small letters"),
        ({"name": "../out"}, "small letters"),
        ({"name": "even"}, "an entry of this name"),
        ({"signal": bad}, "run.py"),
        ({"signal": other}, "someone/encoder"),
        ({"about": thin}, f"nothing is said under '{CARD[1]}'"),
        ({"values": " "}, "It is empty"),
        ({"about": About(licence="x", languages=("en",), date="soon", card=ABOUT.card)}, "2026-12-31"),
        ({"signal": tmp_path}, "may be code or a pickle|does not score"),
    ]
    usual: dict[str, Any] = {"signal": good, "name": "new", "values": "A's", "charter": SIGNED, "about": ABOUT}
    for changes, said in cases:
        with pytest.raises(InvalidEntry, match=said):
            add_entry(copy, **(usual | changes))
        assert _all_files(copy) == before, changes
    plain = Reward.score

    def by_place(self: Reward, prompts: Any, completions: Any) -> Scores:
        s, count = plain(self, prompts, completions), next(calls)
        return Scores(s.mean, s.ignorance, s.support, s.score + count)

    calls = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(Reward, "score", by_place)
        with pytest.raises(InvalidEntry, match="scores otherwise as a copy"):
            add_entry(copy, **usual)
    assert _all_files(copy) == before
    assert not [one for one in add_entry(copy, **usual) if one.passed is False]
    assert "new" in Catalogue.open(copy).names


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"probes": []}, "no probes"),
        ({"floor": 0.0}, "floor"),
        ({"bound": float("inf")}, "bound"),
        ({"mixtures": {"Group A!": {"group A": 1.0}}}, "named alike"),
        ({"about": About(licence="x", languages=(), date="2026-01-01", card=ABOUT.card)}, "languages"),
    ],
)
def test_a_catalogue_that_cannot_be_written_is_not_begun(divided: tuple[Society, Fit], tmp_path: Path, changes: dict[str, Any], said: str):
    with pytest.raises(InvalidEntry, match=said):
        _write(*divided, tmp_path / "values", **changes)
    assert _all_files(tmp_path) == []


# ------------------------------------------------------------------------------------ mixtures and matching


def test_a_mixture_of_entries_is_linear_and_keeps_what_all_prefer(divided: tuple[Society, Fit], written: Path):
    society, _ = divided
    found = Catalogue.open(written)
    prompts = [society.feedback.prompts["text"][p] for p in society.feedback.responses["prompt"].to_list()]
    texts = society.feedback.responses["text"].to_list()
    a, b = (found.rewards[name].score(prompts, texts) for name in ("group-a", "group-b"))
    for w in (0.0, 0.3, 1.0):
        mixed = found.mixture({"group-a": w, "group-b": 1 - w})
        s = mixed.score(prompts, texts)
        assert np.abs(s.score - (w * a.score + (1 - w) * b.score)).max() < 1e-12
        assert np.abs(s.mean - (w * a.mean + (1 - w) * b.mean)).max() < 1e-12
        both = (a.score[:-1] > a.score[1:]) & (b.score[:-1] > b.score[1:])
        assert both.sum() > 20
        assert (s.score[:-1] > s.score[1:])[both].all()
    # the bound on ignorance holds, and is near: the exact figure is that of one fit under these weights
    even = found.rewards["even"].score(prompts, texts)
    bound = found.mixture({"group-a": 0.5, "group-b": 0.5}).score(prompts, texts)
    assert (even.ignorance <= bound.ignorance + 1e-9).all()
    assert repr(mixed) == "Mixture(group-a 1)"
    assert mixed(prompts[:2], texts[:2], answer=["x", "y"]) == pytest.approx([float(x) for x in a.score[:2]])
    assert found.mixture({"group-a": 0.5, "even": 0.5})(["p"], ["zzzqqq " * 50]) == [None]


def test_an_entry_of_no_weight_is_not_asked(written: Path):
    found = Catalogue.open(written)
    rewards: dict[str, Any] = {"a": found.rewards["even"], "silent": object()}
    text = found.probes[0]
    assert Mixture(rewards, {"a": 1.0, "silent": 0.0})([text.prompt], [text.safe]) == found.rewards["even"]([text.prompt], [text.safe])
    for weights, said in (({"a": 0.5}, "sum to 1"), ({"b": 1.0}, "Use a, silent"), ({"a": 2.0, "silent": -1.0}, "0 or more")):
        with pytest.raises(InvalidSetting, match=said):
            Mixture(rewards, weights)


def test_people_are_matched_to_the_entry_whose_values_they_hold(divided: tuple[Society, Fit], written: Path):
    """R105: by their own decided pairs, each rater of the study finds the entry of their group; ties are left out and counted; the posterior
    is that of the gaps that the entries' rewards imply."""
    society, _ = divided
    found = Catalogue.open(written)
    feedback = society.feedback
    people = found.likelihoods(feedback)
    assert list(people) == feedback.raters["id"].to_list()
    right = 0
    for rater, one in enumerate(people.values()):
        judged = feedback.judgments.filter(feedback.judgments["rater"] == rater)
        ties = int((judged["outcome"] == "tie").sum())
        assert (one.n, one.left_out) == (len(judged) - ties, ties)
        weights = match(one, found.names, share=found.shares).weights
        right += (weights["group-a"] > weights["group-b"]) == (society.truth.group[rater] == 0)
    own = feedback.filter((feedback.judgments["rater"] == 0).to_numpy())
    matched = found.match(own)
    assert right >= 18
    pairs = own.pairs().filter(own.pairs()["outcome"].is_in(["left", "right"]))
    texts = own.responses["text"].to_list()
    prompts = [own.prompts["text"][p] for p in own.responses["prompt"].to_list()]
    left, other = pairs["left"].to_numpy().astype(int), pairs["right"].to_numpy().astype(int)
    mean = np.stack([found.rewards[name].score(prompts, texts).mean for name in found.names], 1)
    sd = np.stack(
        [one.reward.fit.gaps(own, left, other, group_weights=one.charter.electorate.weights, without=()).ignorance for one in found.listed],
        1,
    )
    by_hand = match(
        likelihood_of_choices(mean[left] - mean[other], sd, (pairs["outcome"] == "left").to_numpy()), found.names, share=found.shares
    )
    assert np.abs(by_hand.posterior - matched.posterior).max() < 1e-9
    with pytest.raises(InvalidSetting, match="place them as a community"):
        found.match(feedback)
    community = found.match_people(feedback, seed=0)
    alone = match_community(list(people.values()), found.names, share=found.shares, seed=0)
    assert (community.mean == alone.mean).all()
    assert community.n == sum(one.n for one in people.values())


def test_the_axes_of_a_charter_count_in_a_match():
    """By the gaps that the charter's axes make, and not by those of all axes as they were judged."""
    society = simulate(n_prompts=30, n_raters=10, n_judgments=800, seed=3)
    feedback = society.feedback
    names = np.where(np.arange(feedback.n_judgments) % 2 == 0, "helpful", "kind")
    feedback = replace(feedback, judgments=feedback.judgments.with_columns(pl.Series("axis", names).cast(feedback.judgments["axis"].dtype)))
    result = fit(feedback, utility=MultiAxis(Linear(n_columns=32)), observation=PLAIN)
    found: dict[str, Any] = {}
    absent: Any = (None,)  # neither terms, nor what an entry says of itself, nor its safety
    for name, axes in (("all", {}), ("helpful", {"helpful": 1.0}), ("kind", {"kind": 1.0})):
        charter = Charter(axes=axes, authors=("Ada",))
        listed: Any = (Listed(*absent, charter, Reward(result, charter=charter), *absent),) * 2
        found[name] = Catalogue(Path(), *absent, (), listed, ()).likelihoods(feedback)
    pairs = feedback.pairs().filter(pl.col("outcome").is_in(["left", "right"]))
    left, right = pairs["left"].to_numpy().astype(np.int64), pairs["right"].to_numpy().astype(np.int64)
    mine = pairs["rater"].to_numpy() == 0
    first = (pairs["outcome"] == "left").to_numpy()[mine]
    for name, likelihoods in found.items():
        gaps = result.gaps(feedback, left, right, at=None if name == "all" else {"axis": {name: 1.0}})
        by_hand = likelihood_of_choices(np.stack([gaps.mean[mine]] * 2, 1), np.stack([gaps.ignorance[mine]] * 2, 1), first, left_out=0)
        assert np.abs(by_hand.log - likelihoods[feedback.raters["id"][0]].log).max() < 1e-9, name
    rater = feedback.raters["id"][0]
    assert np.abs(found["helpful"][rater].log - found["kind"][rater].log).max() > 1e-3


def test_a_charter_takes_its_population_file_into_a_catalogue(divided: tuple[Society, Fit], copy: Path, tmp_path: Path):
    _, result = divided
    result.save(tmp_path / "fit")
    (tmp_path / "population.csv").write_text("group,share\ngroup A,0.2\ngroup B,0.8\n", encoding="utf-8")
    electorate = Electorate(weighting="target", target="population.csv")
    (tmp_path / "charter.toml").write_text(SIGNED.model_copy(update={"electorate": electorate}).to_toml(), encoding="utf-8")
    charter = Charter.from_toml(tmp_path / "charter.toml")
    add_entry(copy, tmp_path / "fit", name="census", values="As many as there are.", charter=charter, about=ABOUT)
    found = Catalogue.open(copy)
    assert "census" in found.names
    one = found.listed[found.names.index("census")]
    assert one.charter.hash == charter.hash
    assert one.charter.group_weights(result) == pytest.approx({"group A": 0.2, "group B": 0.8})
    (copy / "census" / "population.csv").write_text("group,share\ngroup A,0.9\ngroup B,0.1\n", encoding="utf-8")
    assert _failed(Catalogue.open(copy), "census")[0] == "fingerprint"


def test_groups_without_latin_names_are_numbered(divided: tuple[Society, Fit], tmp_path: Path):
    society, result = divided
    renamed = {"男": {"group A": 1.0}, "女": {"group B": 1.0}, "é": {"group A": 0.5, "group B": 0.5}}
    found = _write(society, result, tmp_path / "values", mixtures=renamed, floor=0.01)
    assert found.names == ("entry-3", "entry-4", "entry-5", "group-a", "group-b")
    assert [one.entry.values[:1] for one in found.listed[:3]] == ["男", "女", "é"]


def test_an_empty_catalogue_matches_nobody(divided: tuple[Society, Fit], tmp_path: Path):
    society, result = divided
    found = _write(society, result, tmp_path / "values", authors=[])
    assert (found.names, _failed(found, "even")) == ((), ["charter"])
    with pytest.raises(InvalidSetting, match="lists no entry"):
        found.likelihoods(society.feedback)


# ------------------------------------------------------------------------------------ the command line


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def _call(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seamark", "catalogue", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return _call


def test_list_and_check_say_what_is_wrong(copy: Path, call: Callable[..., tuple[int, str, str]]):
    status, out, _ = call("check", copy)
    assert status == 0
    assert "catalogue/even/floor" in out
    assert "Interval(" not in out
    assert re.search(
        r"even: It scores the safe response higher for \d+% \[\d+(\.\d)?, \d+(\.\d)?\] of 40 prompts; the floor is 0.5",
        " ".join(out.split()),
    )
    _edit(copy / "group-a", "charter.toml", 'authors = ["Ada"]', 'authors = [" "]')
    _edit(copy / "group-b", "entry.toml", 'values = "group B"', 'values = "[red]group B[/red]"')
    status, out, _ = call("check", copy)
    assert status == 1
    status, text, _ = call("check", copy, "--json")
    assert status == 1
    record = json.loads(text)
    blocking = [f for f in record["findings"] if f["verdict"] == "blocking"]
    assert [f["code"] for f in blocking] == ["catalogue/group-a/charter"]
    floor = next(f for f in record["findings"] if f["code"] == "catalogue/even/floor")
    assert floor["low"] < floor["estimate"] <= floor["high"]
    status, out, _ = call("list", copy)
    assert status == 0
    assert "2 listed, 1 not" in out
    assert "[red]group B[/red]" in out
    assert re.search(r"safe response preferred for \d+% \[[\d.]+, [\d.]+\] of 40 prompts\)", out)
    assert "not listed: group-a: Its charter is signed by" not in out
    assert "not listed: group-a: Its charter is unsigned (0 of 1 author)." in out
    listed = json.loads(call("list", copy, "--json")[1])
    assert [e["name"] for e in listed["entries"]] == ["even", "group-b"]
    assert list(listed["refused"]) == ["group-a"]
    assert f"next: seamark catalogue match {copy} JUDGMENTS" in out
    for name in ("even", "group-b"):
        _edit(copy / name, "charter.toml", 'authors = ["Ada"]', "authors = []")
    out = call("list", copy)[1]
    assert "0 listed, 3 not" in out
    assert f"next: seamark catalogue check {copy}\n" in out  # nothing is there to match with
    status, _, err = call("list", copy.parent)
    assert status == 2
    assert "catalogue.toml" in err


def test_match_takes_one_person_or_many(
    divided: tuple[Society, Fit], written: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
):
    society, _ = divided
    feedback = society.feedback
    feedback.filter((feedback.judgments["rater"] == 0).to_numpy()).to_jsonl(tmp_path / "one.jsonl")
    feedback.to_jsonl(tmp_path / "all.jsonl")
    status, out, _ = call("match", written, tmp_path / "one.jsonl", "--json")
    assert status == 0
    found = json.loads(out)
    assert sum(row["weight"] for row in found["weights"]) == pytest.approx(1)
    assert found["chosen"] in ("even", f"group-{'ab'[society.truth.group[0]]}")
    status, out, _ = call("match", written, tmp_path / "one.jsonl")
    assert status == 0
    assert f"nearest: {found['chosen']}" in out
    many = json.loads(call("match", written, tmp_path / "all.jsonl", "--json")[1])
    assert many["people"] == feedback.n_raters
    expected = Catalogue.open(written).match_people(feedback, seed=0)
    assert {row["entry"]: row["weight"] for row in many["weights"]} == pytest.approx(expected.weights)
    assert all(row["low"] <= row["weight"] <= row["high"] for row in many["weights"])
    assert "[" in call("match", written, tmp_path / "all.jsonl")[1]
