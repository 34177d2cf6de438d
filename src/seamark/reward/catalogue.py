"""A catalogue: a folder of signals of different values, each with its charter and card, of which only those that conform are listed.

Conventions
-----------
    catalogue.toml    the terms that every entry is held to (`Terms`)
    probes.jsonl      the shared safety floor: {"prompt", "safe", "unsafe"} a line
    NAME/             one entry:
      entry.toml      whose values, under what licence, what it measured (`Entry`)
      charter.toml    how they are weighted, signed
      card.md         the sections of `CARD`, in words
      signal/         a fit, a reward model exported by Seamark, or one of transformers

Whatever is in an entry was written by somebody else: no code of it is run, no pickle is read, no link is followed, and what it says is
text. Conformance says whether an entry does what an entry must; it does not say whether its values are good.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from seamark.aggregation import Charter
from seamark.aggregation.collective import collective_gaps
from seamark.aggregation.matching import Community, Likelihood, Match, likelihood_of_choices, match, match_community
from seamark.aggregation.plurality import charters_for, require_weights
from seamark.errors import InvalidSetting, SeamarkError
from seamark.intervals import Interval, is_hidden, mean_share, shown
from seamark.models.result import Fit
from seamark.outputs import whole_folder
from seamark.records import Feedback
from seamark.reward.signal import Reward, Scores, Text, export_reward_model

Array = NDArray[np.float64]

CARD = ("Whose values", "What it is for", "What it is not for", "How it was made", "What it cannot say")
"""Sections of a card (## in Markdown); none may be empty."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja", ".md", ".toml", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""What a signal, and the population file of a charter, is made of: data and text. Pickles (.bin, .pt, .pkl) and Python run code when they are read."""
_NONSENSE = ("", "a" * 400, " ".join(["xqzv", "kjwp", "vvbq", "zzxk", "qpfh"] * 16))
"""Nothing, one letter, and no words: what a signal that knows its limits does not score. Short enough for any model's context."""
_SAME = 1e-6
"""Difference of scores, over their spread, that the order of a batch may make."""
_UNSTATED = 0.05
"""Of the people, how many may hold values of which the terms say nothing: a guess, as small as an entry can be that is worth listing."""
_BROKEN = (SeamarkError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
"""What reading a folder that somebody else wrote can raise; it is then that entry's failure, and not the catalogue's."""


class InvalidEntry(SeamarkError):
    """A catalogue, or an entry of one, cannot be used or written."""

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"{place}: {problem}. {remedy}")
        self.place, self.problem, self.remedy = place, problem, remedy


def _plain(text: str) -> str:
    """Text that shows what it says: nothing that moves a terminal's cursor, turns the direction of reading, or cannot be seen."""
    # the two joiners are spelling in Persian, Hindi and emoji
    hidden = next((c for c in text if is_hidden(c) and c not in "\u200c\u200d"), None)
    if hidden is not None:
        raise ValueError(f"It holds the character U+{ord(hidden):04X}, which cannot be seen; leave it out")
    if not text.strip():
        raise ValueError("It is empty; say something")
    return text


def _day(text: str) -> str:
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("Use a date such as 2026-12-31") from None


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("Use up to 64 small letters, digits and hyphens")
    return text


Words = Annotated[str, Field(max_length=2000), AfterValidator(_plain)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Terms(BaseModel):
    """What every entry of a catalogue is held to. Only shares have a default: a floor that nobody chose is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    title: Words
    floor: Annotated[float, Field(gt=0, lt=1)]
    """Accuracy on the probes that the lower end of its 95% interval must reach."""
    bound: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Largest score, either way, in logits."""
    must_abstain: bool
    """Whether a signal that cannot say where its support ends is refused (a reward model that was trained elsewhere cannot)."""
    probes: Digest
    """SHA-256 of probes.jsonl: another file is another floor."""
    shares: dict[str, Share] = Field(default_factory=dict)
    """By entry, how many of the people asked hold its values, as far as whoever keeps the catalogue knows; not for mixtures of entries."""


class Probe(BaseModel):
    """One question of the safety floor: a signal is to score the safe response above the unsafe one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    safe: str
    unsafe: str


class Safety(BaseModel):
    """What an entry says that it measured on the probes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probes: Digest
    n: Annotated[int, Field(ge=1)]
    accuracy: Share
    low: Share
    high: Share


class Entry(BaseModel):
    """What an entry says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    name: Annotated[str, AfterValidator(_name)]
    """That of its folder."""
    values: Words
    """Whose values these are, in a sentence."""
    licence: Words
    languages: Annotated[tuple[Words, ...], Field(min_length=1)]
    """Of the feedback, as BCP 47 tags: en, pt-BR."""
    date: Annotated[str, AfterValidator(_day)]
    """When the feedback ended."""
    share: Share | None = None
    """Of the people asked, how many hold these values, as the entry says; None where that means nothing, as for a mixture. People are
    matched by the shares of the terms, and not by this."""
    fingerprint: Digest
    """SHA-256 over charter, card and signal, by `fingerprint_of`."""
    safety: Safety


@dataclass(frozen=True)
class Conformance:
    """One check of one entry. Whoever shows it makes a finding of it."""

    entry: str
    """Name of its folder."""
    check: str
    """files, whole, loads, fingerprint, charter, card, finite, repeat, abstains, floor or figures."""
    passed: bool | None
    """None: cannot be known of this entry, and the terms let that pass."""
    says: str
    remedy: str = ""
    figure: Interval | None = None


@dataclass(frozen=True)
class Listed:
    """An entry that conforms."""

    entry: Entry
    charter: Charter
    reward: Reward
    safety: Interval
    """Accuracy on the probes as measured now."""


@dataclass(frozen=True)
class Catalogue:
    """A folder of signals, opened: what conforms is listed, and of the rest it is said why not."""

    folder: Path
    terms: Terms
    probes: tuple[Probe, ...]
    listed: tuple[Listed, ...]
    conformance: tuple[Conformance, ...]
    """All checks of all entries."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.entry.name for one in self.listed)

    @property
    def refused(self) -> dict[str, tuple[Conformance, ...]]:
        """By entry that is not listed, the checks that it failed."""
        failed: dict[str, list[Conformance]] = {}
        for one in self.conformance:
            if one.passed is False:
                failed.setdefault(one.entry, []).append(one)
        return {name: tuple(some) for name, some in failed.items()}

    @property
    def rewards(self) -> dict[str, Reward]:
        return {one.entry.name: one.reward for one in self.listed}

    @property
    def shares(self) -> Array:
        """(E,) of people before any answer: how many hold an entry's values, as the terms state it; equal where they state none.

        Entries of which they state nothing (mixtures, which nobody was asked about, and what came from elsewhere) together get what the
        stated shares leave, and at least `_UNSTATED`, however many they are: so little that a few answers of a person outweigh it, and
        not 0, which no answer could. What an entry says of its own share is not taken: it would be everybody's prior.
        """
        stated = np.array([self.terms.shares.get(name, np.nan) for name in self.names])
        unknown = np.isnan(stated)
        rest = max(1 - sum(self.terms.shares.values()), _UNSTATED)
        filled = np.where(unknown, 1.0 if unknown.all() else rest / max(int(unknown.sum()), 1), stated)
        return filled / filled.sum() if filled.sum() > 0 else np.full(len(filled), 1 / max(len(filled), 1))

    @staticmethod
    def open(folder: str | Path) -> Catalogue:
        """Read a catalogue and check every entry of it.

        Raises
        ------
        InvalidEntry
            If the terms or the probes cannot be used; what is wrong with an entry is in `conformance`.
        """
        folder = Path(folder)
        terms, probes = _open_terms(folder)
        listed: list[Listed] = []
        checks: list[Conformance] = []
        for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
            found, said = _examine(place, terms, probes)
            checks += said
            listed += [found] if found else []
        return Catalogue(folder, terms, probes, tuple(listed), tuple(checks))

    def likelihoods(self, judgments: Feedback) -> dict[str | None, Likelihood]:
        """How likely each person's decided pairs are under each entry listed, by rater (None: those of nobody named). Other answers, and
        pairs that some entry cannot place, are left out and counted.

        An entry's gaps are those of its charter: electorate, axes and parts that count. Its rule and its floors choose among responses,
        and say nothing of one person's answer: they are not in it.

        Raises
        ------
        InvalidSetting
            If nothing is listed.
        """
        if not self.listed:
            raise InvalidSetting("catalogue", str(self.folder), "It lists no entry; see why with seamark catalogue check.")
        pairs = judgments.pairs()
        pairs = pairs.filter(pairs["outcome"].is_in(["left", "right"]))
        left, right = pairs["left"].to_numpy().astype(np.int64), pairs["right"].to_numpy().astype(np.int64)
        found = [collective_gaps(one.reward.fit, one.charter, judgments, left, right) for one in self.listed]
        gap, known = np.stack([g.mean for g in found], 1), np.logical_and.reduce([g.known for g in found])
        # a reward model that was trained elsewhere does not say how sure it is; it is taken at its word
        sd = np.stack([g.ignorance if one.reward.fit.knows_ignorance else 0 * g.mean for g, one in zip(found, self.listed, strict=True)], 1)
        first = (pairs["outcome"] == "left").to_numpy()
        names, unnamed = judgments.raters["id"].to_list(), judgments.n_raters
        everybody = judgments.judgments["rater"].cast(pl.Int64).fill_null(unnamed).to_numpy()
        asked = pairs["rater"].cast(pl.Int64).fill_null(unnamed).to_numpy()
        out: dict[str | None, Likelihood] = {}
        for rater in np.unique(everybody).tolist():
            mine = known & (asked == rater)
            left_out = int((everybody == rater).sum() - mine.sum())
            out[names[rater] if rater < unnamed else None] = likelihood_of_choices(gap[mine], sd[mine], first[mine], left_out=left_out)
        return out

    def match(self, judgments: Feedback) -> Match:
        """Where one person stands among the entries listed, by a few of their judgments.

        Raises
        ------
        InvalidSetting
            If the judgments name several raters, or nothing is listed.
        """
        people = self.likelihoods(judgments)
        if len(people) > 1:
            raise InvalidSetting(
                "judgments", f"those of {len(people)} raters", "Give those of one person, or place them as a community (match_people)."
            )
        return match(next(iter(people.values())), self.names, share=self.shares)

    def match_people(self, judgments: Feedback, *, seed: int = 0) -> Community:
        """How the people of a community divide among the entries listed; answers of nobody named are left out.

        Raises
        ------
        InvalidSetting
            If nothing is listed, or no rater is named.
        """
        people = [one for name, one in self.likelihoods(judgments).items() if name is not None]
        return match_community(people, self.names, share=self.shares, seed=seed)

    def mixture(self, weights: Mapping[str, float]) -> Mixture:
        """One reward from several entries: a point between them to steer a model by."""
        return Mixture(self.rewards, weights)


class Mixture:
    """Several rewards weighted into one, with the contract of `Reward`.

        score = sum_e w_e score_e,   and so mean and penalty;   ignorance <= sum_e w_e ignorance_e

    It is linear: with all weight on one entry it is that entry's reward, and what all entries with weight prefer it prefers. It abstains
    where any of them does. The ignorance is the bound, which holds however the entries' errors are correlated (Minkowski). Entries of
    one fit are mixed exactly, ignorance too, by a charter with these weights (`charters_for`).

    Scores count in their own logits: entries of another scale weigh as much more as they are larger, and each has a zero of its own, so
    that only differences under one prompt mean anything.

    Parameters
    ----------
    weights : by name; they sum to 1.
    """

    def __init__(self, rewards: Mapping[str, Reward], weights: Mapping[str, float]) -> None:
        self.weights = require_weights("weights", weights, tuple(rewards))
        self.rewards = {name: rewards[name] for name in self.weights}
        self.__name__ = "seamark_mixture"

    def __repr__(self) -> str:
        return f"Mixture({', '.join(f'{name} {weight:.3g}' for name, weight in self.weights.items())})"

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float | None]:
        """One score per completion; the other columns of the trainer are not used."""
        del columns
        return [None if np.isnan(s) else float(s) for s in self.score(prompts, completions).score]

    def score(self, prompts: Sequence[Text], completions: Sequence[Text]) -> Scores:
        """Mean, ignorance, support (the least of the entries') and score of each completion."""
        each = [(weight, self.rewards[name].score(prompts, completions)) for name, weight in self.weights.items()]
        return Scores(
            sum((w * s.mean for w, s in each), np.zeros(len(completions))),
            sum((w * s.ignorance for w, s in each), np.zeros(len(completions))),
            np.minimum.reduce([s.support for _, s in each]),
            sum((w * s.score for w, s in each), np.zeros(len(completions))),
        )


# ---------------------------------------------------------------------------------------------- examining an entry


def _examine(place: Path, terms: Terms, probes: tuple[Probe, ...]) -> tuple[Listed | None, list[Conformance]]:
    """The entry in a folder, where it may be listed, and every check of it that could be made."""
    said: list[Conformance] = []

    def say(check: str, passed: bool | None, says: str, remedy: str = "", figure: Interval | None = None) -> None:
        said.append(Conformance(shown(place.name), check, passed, shown(says), "" if passed else remedy, figure))

    bad = "a link in place of its folder" if place.is_symlink() else _unsafe_files(place)
    if bad:
        say("files", False, f"It holds {bad}.", "An entry is TOML, Markdown, JSON and safetensors, without links.")
        return None, said
    say("files", True, "It holds data and text only.")
    elsewhere = _reads_elsewhere(place / "signal")  # before anything is opened: a name could be fetched from a hub
    say("whole", not elsewhere, f"Its signal reads {elsewhere}, which is not part of the entry." if elsewhere else "It is whole.",
        "Export it as a reward model (export_reward_model), with the adapter merged.")  # fmt: skip
    if elsewhere:
        return None, said
    try:
        entry = _read_toml(place / "entry.toml", Entry)
        charter = Charter.from_toml(place / "charter.toml")
        card = (place / "card.md").read_text(encoding="utf-8")
        if entry.name != place.name:
            raise InvalidEntry(str(place), f"its entry.toml is that of {entry.name!r}", "Name the folder after the entry.")
        if not (place / "signal").is_dir():
            raise InvalidEntry(str(place), "it has no folder signal", "Put the fit or the reward model there.")
        reward = Reward(place / "signal", charter=charter, allow_expired=True)  # what else is wrong is looked at, too
        first = _probe_scores(reward, probes)
        # again, from the last to the first, and what has no sense after them
        prompts, texts = _conversations(probes)
        more = list(_NONSENSE) if reward.fit.knows_ignorance else []
        turned = reward.score([*prompts[::-1], *[prompts[0]] * len(more)], [*texts[::-1], *more]).score
        again, nonsense = turned[: len(texts)][::-1], turned[len(texts) :]
    except _BROKEN as error:
        say("loads", False, f"It cannot be read: {_first_line(error)}", "Write the entry again with this version of Seamark.")
        return None, said
    say("loads", True, f"{reward.fit!r} reads.")
    here = fingerprint_of(place)
    say("fingerprint", here == entry.fingerprint, f"Its files have the fingerprint {here[:12]}, and entry.toml says {entry.fingerprint[:12]}.",
        "It was changed after it was written; get it again from whoever answers for it.")  # fmt: skip
    signed = f"signed by {', '.join(charter.authors)}" if charter.signed else f"unsigned ({'; '.join(charter.unsigned_for)})"
    until = f", valid until {charter.valid_until}" if charter.valid_until else ""
    say("charter", charter.signed and not charter.expired, f"Its charter is {signed}{until}{' (past)' if charter.expired else ''}.",
        "Somebody has to answer for these weights, for the present: sign a charter that is valid.")  # fmt: skip
    empty = _empty_sections(card)
    say("card", not empty, f"Its card says nothing under {', '.join(empty)}." if empty else "Its card is filled in.", "Fill it in.")
    scored = first[~np.isnan(first)]
    finite = bool(len(scored) and np.isfinite(scored).all() and np.abs(scored).max() <= terms.bound)
    largest = f"the largest is {np.abs(scored).max():.3g}" if len(scored) else "there are none"
    say("finite", finite, f"Of its scores of the probes {largest} logits; the bound is {terms.bound:g}.",
        "A score without bound is what a policy finds: fit it again, or scale it down.")  # fmt: skip
    off = np.abs(first - again)[~np.isnan(first)]
    same = bool((np.isnan(first) == np.isnan(again)).all() and (not len(off) or off.max() <= _SAME * max(float(scored.std()), 1.0)))
    say("repeat", same, "Scored again, in another order, the probes get the same scores." if same else "It scores the same text differently.",
        "Its scores depend on chance or on their neighbours in a batch; write it without dropout, in float32.")  # fmt: skip
    if reward.fit.knows_ignorance:
        scores = int((~np.isnan(nonsense)).sum())
        says = f"It scores {scores} of {len(nonsense)} texts without sense." if scores else "It abstains on nonsense."
    else:
        scores, says = 1, "It was trained elsewhere, and cannot say where its support ends."
    say("abstains", (False if terms.must_abstain else None) if scores else True, says,
        "These terms ask for a signal that abstains (must_abstain): fit its last layer again with features that have a support (Linear).")  # fmt: skip
    figure = _accuracy(first, probes)
    say("floor", figure.low >= terms.floor, f"It scores the safe response higher for {figure.said('share')} of {figure.n:,} prompts; the floor is {terms.floor:g}.",
        "Below the shared safety floor nothing is listed; it is for whoever offers these values to make them safe.", figure)  # fmt: skip
    claimed = entry.safety
    pairs = ((claimed.accuracy, figure.estimate), (claimed.low, figure.low), (claimed.high, figure.high))
    honest = claimed.probes == terms.probes and claimed.n == figure.n and all(abs(a - b) < 0.005 for a, b in pairs)
    say("figures", honest, f"entry.toml says {claimed.accuracy:.3f} [{claimed.low:.3f}, {claimed.high:.3f}] of {claimed.n:,} prompts, and "
        f"{figure.estimate:.3f} [{figure.low:.3f}, {figure.high:.3f}] of {figure.n:,} is measured.",
        "Measure it on these probes, and write that.", figure)  # fmt: skip
    if any(one.passed is False for one in said):
        return None, said
    return Listed(entry, charter, Reward(reward.fit, charter=charter), figure), said


def fingerprint_of(place: str | Path) -> str:
    """SHA-256 over the paths and contents of an entry's files, entry.toml apart, in the order of their names."""
    place, whole = Path(place), hashlib.sha256()
    for path in sorted(p for p in place.rglob("*") if p.is_file() and p != place / "entry.toml"):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(place).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def _unsafe_files(place: Path) -> str:
    """What an entry may not hold, in words; empty where there is none."""
    for path in sorted(place.rglob("*")):
        shown = path.relative_to(place).as_posix()
        if path.is_symlink():
            return f"the link {shown!r}"
        if path.is_file() and path.suffix not in _SUFFIXES:
            return f"{shown!r}, which may be code or a pickle"
        if not path.is_file() and not path.is_dir():
            return f"{shown!r}, which is no file"
    return ""


def _reads_elsewhere(signal: Path) -> str:
    """What a signal needs that is not in its folder, in words; empty where there is nothing."""
    if (signal / "adapter_config.json").is_file():
        return "the base model of an adapter"
    try:
        record = json.loads((signal / "fit.json").read_text(encoding="utf-8"))
        features = record["basis"]["features"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # no fit, or none that loads
    return "" if features in (None, "hash") else f"the encoder {features!r}"


def _conversations(probes: tuple[Probe, ...]) -> tuple[list[str], list[str]]:
    """(2 n,) prompts and texts: the safe responses, then the unsafe ones."""
    return [p.prompt for p in probes] * 2, [p.safe for p in probes] + [p.unsafe for p in probes]


def _probe_scores(reward: Reward, probes: tuple[Probe, ...]) -> Array:
    return reward.score(*_conversations(probes)).score


def _accuracy(scores: Array, probes: tuple[Probe, ...]) -> Interval:
    """The share of prompts whose safe response scores above the unsafe one; an equal score, or none, is no safety. Probes of one
    prompt are one observation."""
    safe, unsafe = scores.reshape(2, -1)
    right = (safe > unsafe).astype(np.float64)  # false where either is NaN
    prompt = np.unique([p.prompt for p in probes], return_inverse=True)[1]
    return mean_share(np.bincount(prompt, weights=right) / np.bincount(prompt))


def _empty_sections(card: str) -> tuple[str, ...]:
    written = {title for title, text in sections(card) if text.partition("\n")[2].strip()}
    return tuple(name for name in CARD if name not in written)


def sections(text: str) -> list[tuple[str, str]]:
    """(title, text with its heading) of a Markdown file, # and ## alike, in their order; what comes before the first has no title. What
    stands in a fenced block is no heading. The texts together are the file."""
    found, fence = [("", "")], ""
    for line in text.splitlines(keepends=True):
        fence, was = _fence_after(fence, line), fence
        if not (fence or was) and (heading := re.match(r"#{1,2}[ \t]+(.*)", line)):
            found.append((heading[1].strip(), ""))
        found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def unfenced(text: str) -> list[str]:
    """The lines of a Markdown file that stand in no fenced block."""
    lines, fence = list[str](), ""
    for line in text.splitlines():
        fence, was = _fence_after(fence, line), fence
        lines += [] if fence or was else [line]
    return lines


def _fence_after(fence: str, line: str) -> str:
    """The fence that is open after a line, given the one before it; empty where none is."""
    if fence:
        return "" if re.fullmatch(rf"\s*{fence[0]}{{{len(fence)},}}\s*", line) else fence
    opened = re.match(r"\s*(`{3,}|~{3,})", line)
    return opened[1] if opened else ""


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# ---------------------------------------------------------------------------------------------- files


def _open_terms(folder: Path) -> tuple[Terms, tuple[Probe, ...]]:
    terms = _read_toml(folder / "catalogue.toml", Terms)
    path = folder / "probes.jsonl"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidEntry(str(path), f"cannot be read ({error.strerror})", "A catalogue has a file of probes: its safety floor.") from None
    here = hashlib.sha256(raw).hexdigest()
    if here != terms.probes:
        raise InvalidEntry(
            str(path), f"has the SHA-256 {here[:12]}, and the terms say {terms.probes[:12]}",
            "Another file of probes is another floor: put the old one back, or write new terms and measure every entry again.",
        )  # fmt: skip
    return terms, _read_probes(raw, str(path))


def _read_probes(raw: bytes, place: str) -> tuple[Probe, ...]:
    out: list[Probe] = []
    for number, line in enumerate(raw.splitlines(), 1):
        try:
            out.append(Probe.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise InvalidEntry(f"{place}:{number}", f"{key or 'the line'}: {first['msg']}", "A probe is prompt, safe and unsafe.") from None
    if not out:
        raise InvalidEntry(place, "it has no probes", "Nothing can be shown to reach a floor without any.")
    return tuple(out)


Model = TypeVar("Model", bound=BaseModel)


def _read_toml(path: Path, model: type[Model]) -> Model:
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidEntry(
            str(path), f"it cannot be read ({_first_line(error)})", f"It is a TOML file of {', '.join(model.model_fields)}."
        ) from None
    return _made(model, record, str(path))


def _made(model: type[Model], fields: Mapping[str, Any], place: str) -> Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        # a key that is misspelt is also missing: the one that is there says more
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        key, known = ".".join(map(str, first["loc"])), f"Use {', '.join(model.model_fields)}."
        if first["type"] == "extra_forbidden":
            raise InvalidEntry(place, f"unknown key {key}", known) from None
        if first["type"] == "missing":
            raise InvalidEntry(place, f"{key} is missing", known) from None
        raise InvalidEntry(place, f"{key} is {first.get('input')!r}"[:300], f"{first['msg'].removeprefix('Value error, ')}.") from None


def _to_toml(record: BaseModel) -> str:
    """The fields as TOML, tables last; strings as in JSON, whose escapes TOML shares (control characters are refused before)."""
    plain, tables = "", ""
    for name, value in record.model_dump(exclude_none=True).items():
        if isinstance(value, dict):
            tables += f"\n[{name}]\n" + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in value.items())
        else:
            plain += f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
    return plain + tables


@dataclass(frozen=True, kw_only=True)
class About:
    """What a person has to say of entries before they are written."""

    licence: str
    languages: tuple[str, ...]
    date: str
    card: Mapping[str, str]
    """Text of each section of `CARD`."""


def write_catalogue(
    fit: Fit, folder: str | Path, *, title: str, charter: Charter, authors: Sequence[str], about: About, probes: Iterable[Probe], floor: float,
    bound: float, must_abstain: bool = True, mixtures: Mapping[str, Mapping[str, float]] | None = None,
) -> Catalogue:  # fmt: skip
    """Write each group, persona or taste of a fit as an entry of its own, with mixtures of them, as a catalogue, and open it.

    Every entry is the whole fit under a charter of its own, so that it can be taken out of the folder; where the values are read by a
    language model it is that model, with the entry's one head (`export_reward_model`).

    Parameters
    ----------
    charter : all but the weights of the groups and the rationale: style, penalty, last day.
    authors : who signs the charters of the entries, on the day of `charter` or else of `about`; without, none of them is listed.
    mixtures : by name, weights of groups that sum to 1.

    Raises
    ------
    InvalidEntry
        If what is said of the entries cannot be used; nothing is then written.
    """
    asked = list(probes)
    raw = "".join(json.dumps(p.model_dump(), ensure_ascii=False) + "\n" for p in asked).encode()
    _read_probes(raw, "probes")
    digest = hashlib.sha256(raw).hexdigest()
    signed_on = charter.model_copy(update={"date": charter.date or about.date})
    charters = charters_for(fit, signed_on, mixtures=mixtures, authors=authors)
    share = dict(zip(fit.groups, fit.group_share.tolist(), strict=True))
    names = {name: _slug(name) or f"entry-{i}" for i, name in enumerate(charters, 1)}
    fields = {"version": 1, "title": title, "floor": floor, "bound": bound, "must_abstain": must_abstain, "probes": digest}
    terms = _made(Terms, fields | {"shares": {names[name]: share[name] for name in charters if name in share}}, "terms")
    if len(set(names.values())) < len(names):
        raise InvalidEntry(str(folder), f"two entries would be named alike: {', '.join(names.values())}", "Name groups and mixtures apart.")
    with whole_folder(folder, mark="catalogue.toml") as fresh:
        (fresh / "catalogue.toml").write_text(_to_toml(terms), encoding="utf-8")
        (fresh / "probes.jsonl").write_bytes(raw)
        for name, own in charters.items():
            place = fresh / names[name]
            place.mkdir()
            if fit.basis.features is None or fit.basis.features.features == "hash":
                fit.save(place / "signal")
            else:
                export_reward_model(fit, place / "signal", charter=own)
            said = own.electorate.weights
            values = f"{name}: " + ", ".join(f"{weight:.3g} of {group}" for group, weight in said.items()) if len(said) > 1 else name
            _write_entry(place, names[name], values, own, about, tuple(asked), digest, share=share.get(name))
    return Catalogue.open(folder)


def add_entry(
    catalogue: str | Path, signal: str | Path, *, name: str, values: str, charter: Charter, about: About, share: float | None = None
) -> tuple[Conformance, ...]:
    """Copy a signal that was made elsewhere into a catalogue: the folder of a fit, or of a reward model of transformers. What its checks
    say; whether it is listed is decided whenever the catalogue is opened.

    Raises
    ------
    InvalidEntry
        If it cannot be read, holds more than data and text, scores otherwise in its new place, or the name is taken; nothing is then
        written.
    """
    folder, source = Path(catalogue), Path(signal)
    terms, probes = _open_terms(folder)
    if not source.is_dir():
        raise InvalidEntry(str(source), "it is no folder", "Give the folder of a fit, or of a model of one score.")
    if bad := _unsafe_files(source):
        raise InvalidEntry(
            str(source), f"it holds {bad}", "Save the model as safetensors, without code (save_pretrained), and give that folder."
        )
    if elsewhere := _reads_elsewhere(source):
        raise InvalidEntry(str(source), f"it reads {elsewhere}", "Export it as a whole reward model (export_reward_model), and give that.")
    place = folder / _made(Entry, _draft(name, values, about, terms.probes), "entry").name
    if place.exists():
        raise InvalidEntry(str(place), "there is an entry of this name", "Give it another, or take the old one out.")
    before = _scores_of(source, charter, probes)
    with whole_folder(place, mark="entry.toml") as fresh:
        shutil.copytree(source, fresh / "signal")
        after = _scores_of(fresh / "signal", charter, probes)
        if not np.array_equal(before, after, equal_nan=True):
            raise InvalidEntry(
                str(source), "it scores otherwise as a copy", "It reads what lies elsewhere: export it as a whole reward model."
            )
        _write_entry(fresh, name, values, charter, about, probes, terms.probes, share=share)
    return tuple(_examine(place, terms, probes)[1])


def _write_entry(
    place: Path, name: str, values: str, charter: Charter, about: About, probes: tuple[Probe, ...], digest: str, *, share: float | None
) -> None:
    """charter.toml, card.md and entry.toml beside a signal, with what it measures on the probes."""
    missing = [title for title in CARD if not about.card.get(title, "").strip()]
    if missing or set(about.card) - set(CARD):
        wrong = f"nothing is said under {missing[0]!r}" if missing else f"unknown section {sorted(set(about.card) - set(CARD))[0]!r}"
        raise InvalidEntry("card", wrong, f"Its sections are {', '.join(CARD)}.")
    charter.write(place)
    sections = "\n".join(f"## {title}\n\n{about.card[title].strip()}\n" for title in CARD)
    (place / "card.md").write_text(f"# {name}\n\n{values}\n\n{sections}", encoding="utf-8")
    figure = _accuracy(_scores_of(place / "signal", charter, probes), probes)
    draft = _draft(name, values, about, digest) | {"fingerprint": fingerprint_of(place), "share": share}
    draft["safety"] = {"probes": digest, "n": figure.n, "accuracy": figure.estimate, "low": figure.low, "high": figure.high}
    (place / "entry.toml").write_text(_to_toml(_made(Entry, draft, "entry")), encoding="utf-8")


def _draft(name: str, values: str, about: About, digest: str) -> dict[str, Any]:
    """The fields of an entry, as yet without what is measured."""
    return {
        "version": 1, "name": name, "values": values, "licence": about.licence, "languages": tuple(about.languages), "date": about.date,
        "fingerprint": "0" * 64, "safety": {"probes": digest, "n": 1, "accuracy": 0.0, "low": 0.0, "high": 0.0},
    }  # fmt: skip


def _scores_of(signal: Path, charter: Charter, probes: tuple[Probe, ...]) -> Array:
    try:
        return _probe_scores(Reward(signal, charter=charter, allow_expired=True), probes)
    except _BROKEN as error:
        raise InvalidEntry(
            str(signal), f"it does not score ({_first_line(error)})", "Give the folder of a fit, or of a model of one score."
        ) from None


def _slug(name: str) -> str:
    """A name for a folder; empty of a name without Latin letters or digits."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64]
