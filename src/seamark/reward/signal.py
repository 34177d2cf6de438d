"""`Reward`: a bounded, abstaining reward that carries its ignorance; `export_signal`: TRL-ready rows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.aggregation import Charter, Collective, collective_gaps
from seamark.aggregation.collective import require_meetable
from seamark.errors import InvalidSetting, UnreadableSource
from seamark.models.fitting import open_reward_model
from seamark.models.result import Fit
from seamark.outputs import whole_file, whole_folder
from seamark.records import Feedback

Array = NDArray[np.float64]
Text = str | Sequence[dict[str, Any]]

OUT_OF_SUPPORT = 0.05
"""Below this support the score is an abstention: the data has removed less than a twentieth of the prior variance, so the number
would be the prior's, not anybody's feedback."""


@dataclass(frozen=True)
class Scores:
    """What a reward says about n completions, in logits."""

    mean: Array
    """(n,) utility for the mean person of the charter's electorate, relative to the average training response."""
    ignorance: Array
    """(n,) posterior sd of that utility; NaN where nothing is known of it (a reward model that was trained elsewhere)."""
    support: Array
    """(n,) share of the prior variance that the data has removed; NaN where the completion cannot be placed."""
    score: Array
    """(n,) the rule's score of utilities less penalty x ignorance, 10 logits and the shortfall less below a floor; NaN out of support, and
    where the rule chooses among the completions of a prompt and there is no other."""


class Reward:
    """A fitted feedback model as a reward function, under a charter.

    Calling it is TRL's contract: `reward(prompts=..., completions=..., **columns) -> list[float | None]`, None where the
    completion is out of support. It is a plain callable with a name, so it can be pickled into a trainer's worker by path.

    Parameters
    ----------
    fit : a fit, the folder of one, or the folder or hub name of a reward model.
    charter : a charter, the path of one, or None for the written-out default, which is unsigned.
    allow_expired : score although the charter's `valid_until` has passed.
    """

    def __init__(self, fit: Fit | str | Path, *, charter: Charter | str | Path | None = None, allow_expired: bool = False) -> None:
        self.fit = fit if isinstance(fit, Fit) else open_fit(fit)
        self.charter = Charter() if charter is None else charter if isinstance(charter, Charter) else Charter.from_toml(charter)
        # a charter that names what the fit does not have fails here, not in training
        self.charter.group_weights(self.fit)
        self.charter.at(self.fit)
        self.charter.require_weighed(self.fit)
        self.allow_expired = allow_expired
        self.__name__ = "seamark_reward"

    def __repr__(self) -> str:
        until = f", valid until {self.charter.valid_until}" if self.charter.valid_until else ""
        return f"Reward({self.fit!r}, charter={self.charter.title!r}{until}{'' if self.charter.signed else ', ' + self.charter.signature})"

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float | None]:
        """One score per completion; the other columns of the trainer are not used."""
        del columns
        return [None if np.isnan(s) else float(s) for s in self.score(prompts, completions).score]

    def score(self, prompts: Sequence[Text], completions: Sequence[Text]) -> Scores:
        """Mean, ignorance, support and score of each completion.

        Raises
        ------
        InvalidSetting
            If there are not as many prompts as completions.
        Expired
            If the charter's `valid_until` has passed, unless `allow_expired`.
        """
        if not self.allow_expired:  # looked at in every call: a server outlives the date
            self.charter.require_valid()
        if len(prompts) != len(completions):
            raise InvalidSetting("prompts", len(prompts), f"There are {len(completions)} completions; give one prompt for each.")
        if not completions:
            nothing = np.zeros(0)
            return Scores(nothing, nothing, nothing, nothing)
        texts = [_text(c) for c in completions]
        feedback = Feedback.from_columns(
            {
                "kind": ["thumbs"] * len(texts),
                "outcome": ["skipped"] * len(texts),
                "prompt": [p if isinstance(p, str) else json.dumps(list(p), ensure_ascii=False) for p in prompts],
                "prompt_is_messages": [not isinstance(p, str) for p in prompts],
                "texts": [[t] for t in texts],
            },
            source="completions",
        )
        code = feedback.judgments["responses"].list.get(0).cast(pl.Int64).to_numpy()
        found = Collective.of(self.fit, self.charter, feedback)
        support = self.fit.support(feedback)
        # what is out of support is no option for the others, either
        placed = replace(found, by_person=np.where(support >= OUT_OF_SUPPORT, found.by_person, np.nan))
        score = placed.scores(feedback.responses["prompt"].cast(pl.Int64).fill_null(-1).to_numpy())
        return Scores(found.mean[code], found.ignorance[code], support[code], score[code])


def open_fit(place: str | Path) -> Fit:
    """The fit in a folder, or a reward model in a folder or under a hub name, OWNER/NAME, as one (`open_reward_model`).

    Raises
    ------
    UnreadableSource
        If it is neither, or is no folder and could not be a hub name: a slip of the pen in a path is not looked for on the network.
    """
    if (Path(place) / "fit.json").is_file():
        return Fit.load(place)
    _require_nameable(place)
    from seamark.models.network import reads_conversations

    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        return Fit.load(place)  # says what is missing
    if not reads_conversations(str(place)):
        raise UnreadableSource(
            str(place), "neither a fit nor a reward model", "Give the folder of a fit, or of a model with a reward head."
        )
    return open_reward_model(place)


def _require_nameable(place: str | Path) -> None:
    """Refuse what is no folder and no OWNER/NAME of the hub, where an OWNER that is a folder here is none."""
    if Path(place).expanduser().is_dir():
        return
    parts = Path(place).parts
    if len(parts) != 2 or parts[0].startswith((".", "~", "/")) or Path(parts[0]).is_dir():
        problem = "it is no folder" if Path(place).exists() else "there is no such folder"
        raise UnreadableSource(str(place), problem, "seamark fit writes one; a reward model of the hub is named OWNER/NAME.")


def export_reward_model(
    fit: Fit, folder: str | Path, *, charter: Charter | None = None, allow_expired: bool = False
) -> dict[str, float | str | None]:
    """Write the network that a fit reads its features from as a reward model with the charter's one score, for every consumer of those.

    Values are linear in the features, and the charter's person weighs them linearly, so one row of weights holds it all exactly:
    score = features . (z W), the mean utility less `intercept`, which no reward model of transformers has room for. What is not
    linear is not in it: the penalty for ignorance, and abstaining out of support; `Reward(folder)` has both, from the fit beside it.

    Returns
    -------
    intercept, and the digest of how conversations are read.

    Raises
    ------
    InvalidSetting
        If the fit's features are not those of a language model, or length and style count in the charter: they are not features of it.
    Expired
        If the charter's `valid_until` has passed, unless `allow_expired`.
    """
    from seamark.models.checkpoint import SIDECAR, RewardModel, open_classifier, open_reader, save_reward_model
    from seamark.models.network import model_folder, reads_conversations

    charter = charter or Charter()
    if not allow_expired:
        charter.require_valid()
    features = fit.basis.features
    if features is None or features.features == "hash" or not reads_conversations(features.features):
        what = "a table of values" if features is None else features.features
        raise InvalidSetting(
            "fit", what, "Its values are not read by a language model: fit with utility=Network(...), or Linear(its folder)."
        )
    if charter.rule != "expected-utility" or charter.floors.groups or charter.floors.axes:
        what = charter.rule if charter.rule != "expected-utility" else "floors"
        remedy = "One row of weights holds the mean utility alone: use rule expected-utility without floors, or serve the fit itself."
        raise InvalidSetting("charter", what, remedy)
    if features.style_names and "style" not in charter.without():
        raise InvalidSetting(
            "style",
            "counted",
            "A score of the network alone has no block of length and style: discount style in the charter, or fit with style=False.",
        )
    read, place = model_folder(features.features).resolve(), Path(folder).resolve()
    if place == read or place in read.parents or read in place.parents:
        raise InvalidSetting("folder", str(folder), "It is, or is part of, what is read, and would be lost. Give another name.")
    weights = fit.mean_weights(charter.group_weights(fit), without=charter.without(), at=charter.at(fit))[dict(fit.basis.parts)["content"]]
    intercept = -float(features.content_mean @ weights)
    reader = open_reader(features.features)
    with whole_folder(folder, mark=SIDECAR) as fresh:
        record = {
            "seamark": "reward model",
            "version": 1,
            "intercept": intercept,
            "linear_r2": 1.0,
            "conversations": {
                "digest": reader.conversations.digest,
                "longest": reader.conversations.longest,
                "overlong": reader.conversations.overlong,
            },
            "charter": {"title": charter.title, "hash": charter.hash, "signed": charter.signed, "valid_until": charter.valid_until},
            "not_folded": ["ignorance penalty", "abstention out of support"],
            "fit": fit.spec,
            "versions": fit.versions,
        }
        model = RewardModel.of(open_classifier(features.features, fresh_head=True))
        save_reward_model(model, weights, reader.conversations.tokenizer, fresh, record=record, mean=-intercept)
        fit.reading(str(Path(folder).resolve())).save(fresh / "fit")
    return {"intercept": intercept, "digest": reader.conversations.digest}


def _text(completion: Text) -> str:
    """The text of a completion: itself, or the contents of the assistant's messages."""
    if isinstance(completion, str):
        return completion
    said: list[str] = []
    for message in completion:
        if message.get("role", "assistant") == "assistant":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            said += [str(part["text"]) for part in parts if part.get("text") is not None]
    return "\n".join(said)


@dataclass(frozen=True)
class Signal:
    """What `export_signal` wrote, and what it did not."""

    n_rows: int
    left_out: dict[str, int]
    """Pairs left out, by reason; reasons without any are not listed."""

    def __str__(self) -> str:
        listed = "; ".join(f"{n:,} {reason}" for reason, n in self.left_out.items())
        rows = f"{self.n_rows:,} row{'' if self.n_rows == 1 else 's'}"
        return rows + (f" (pairs left out: {listed})" if listed else "" if self.n_rows else " (no judgment bears on a pair of responses)")


_REASONS = ("without text", "of the same text", "that the fit cannot place", "only ever tied", "that the charter leaves undecided")


def export_signal(fit: Fit, feedback: Feedback, path: str | Path, *, charter: Charter | None = None, allow_expired: bool = False) -> Signal:
    """Write TRL-ready preference rows for the distinct pairs judged in `feedback`; returns how many, and what was left out.

    A row is {prompt, chosen, rejected, margin, soft_label, p_chosen, weight, ignorance, noise, disagreement, charter}: chosen is the response
    that the charter's rule prefers, margin by how much in logits (`Collective.margins`), charter its hash, weight the number of judgments on
    the pair. soft_label = 1 / (1 + exp(-margin)) is the label to train with: a Bradley-Terry loss under it is least where the reward differs
    by the charter's margin. p_chosen is what people want and no label: the probability that a person drawn from the electorate prefers
    chosen, below one half where the charter overrules most of them (a floor, a rule, weights). The doubts are shares of p (1 - p), p being
    p_chosen. Where noise and
    disagreement cannot be told apart both are null and noise_and_disagreement holds their sum. Rankings, choices and ratings
    give the pairs of responses they compared. Left out, and counted, are pairs without text, pairs of the same text, pairs that the
    fit cannot place, pairs that were only ever tied (nobody chose between these, and a margin near 0 is no training pair), and pairs that
    the charter leaves undecided: its rule is tied, or both are below a floor.
    Where the charter has a `valid_until`, every row has it.

    Raises
    ------
    Expired
        If that day has passed, unless `allow_expired`.
    """
    charter = charter or Charter()
    if not allow_expired:
        charter.require_valid()
    pairs = _judged_pairs(feedback)
    left, right = pairs["a"].to_numpy().astype(np.int64), pairs["b"].to_numpy().astype(np.int64)
    written = 0
    left_out = dict.fromkeys(_REASONS, 0)
    with whole_file(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as out:
        if not len(left):
            return Signal(0, {})
        gaps = collective_gaps(fit, charter, feedback, left, right)
        found = Collective.of(fit, charter, feedback)
        require_meetable(found, feedback.responses["prompt"].cast(pl.Int64).fill_null(-1).to_numpy())
        margin = found.margins(left, right)
        doubts, digest = fit.doubts(gaps), charter.hash
        texts, prompts = feedback.responses["text"].to_list(), feedback.prompts.to_dicts()
        prompt_of = feedback.responses["prompt"].to_list()
        total = (doubts["p"] * (1 - doubts["p"])).to_numpy()
        shares = {c: doubts[c].to_list() for c in ("noise", "disagreement", "noise_and_disagreement", "ignorance")}
        p, weight, decided = doubts["p"].to_numpy(), pairs["weight"].to_numpy(), pairs["decided"].to_list()
        for i in range(len(left)):
            a, b = left[i], right[i]
            faults = (texts[a] is None or texts[b] is None, texts[a] == texts[b], not gaps.known[i], not decided[i], not margin[i])
            if any(faults):
                left_out[_REASONS[faults.index(True)]] += 1
                continue
            forward = margin[i] > 0
            chosen, rejected = (a, b) if forward else (b, a)
            prompt = prompts[prompt_of[a]] if prompt_of[a] is not None else {"text": "", "is_messages": False}
            row: dict[str, Any]
            if prompt["is_messages"]:
                row = {
                    "prompt": json.loads(str(prompt["text"])),
                    "chosen": [{"role": "assistant", "content": texts[chosen]}],
                    "rejected": [{"role": "assistant", "content": texts[rejected]}],
                }
            else:
                row = {"prompt": prompt["text"] or "", "chosen": texts[chosen], "rejected": texts[rejected]}
            by = abs(float(margin[i]))
            row |= {
                "margin": round(by, 6),
                "soft_label": round(1 / (1 + math.exp(-by)), 6),
                "p_chosen": round(float(p[i] if forward else 1 - p[i]), 6),
                "weight": float(weight[i]),
            }
            row |= {name: None if values[i] is None else round(values[i] / total[i], 6) for name, values in shares.items()}
            row["charter"] = digest
            if charter.valid_until:
                row["valid_until"] = charter.valid_until
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return Signal(written, {reason: n for reason, n in left_out.items() if n})


def _judged_pairs(feedback: Feedback, *, limit_per_prompt: int = 200) -> pl.DataFrame:
    """Distinct unordered pairs (a < b) that judgments bear on, with their weight, and whether any of them chose between the two.

    Single ratings pair the responses rated under one prompt, at most `limit_per_prompt` of them.
    """
    frame = feedback.judgments.with_columns(pl.col("weight").fill_null(1.0)).filter(~pl.col("outcome").is_in(["cannot_tell", "skipped"]))
    several = frame.filter(pl.col("responses").list.len() > 1).with_row_index("j")
    chose = ~pl.col("outcome").cast(pl.String).is_in(["tie", "both_bad"])
    if "ranks" in several.columns:
        chose &= (pl.col("ranks").list.n_unique() > 1).fill_null(value=True)
    several = several.select("j", "weight", "responses", chose.alias("decided"))
    slots = several.explode("responses").with_columns(pl.int_range(pl.len()).over("j").alias("slot"))
    compared = (
        slots.join(slots, on="j", suffix="_b")
        .filter(pl.col("slot") < pl.col("slot_b"))
        .select(pl.col("responses").alias("x"), pl.col("responses_b").alias("y"), "weight", "decided")
    )
    single = (
        frame.filter(pl.col("responses").list.len() == 1)
        .select("prompt", pl.col("responses").list.get(0).alias("x"))
        .drop_nulls()
        .unique(maintain_order=True)
    )
    rated = (
        single.join(single, on="prompt", suffix="_y")
        .filter(pl.col("x") < pl.col("x_y"))
        .group_by("prompt", maintain_order=True)
        .head(limit_per_prompt)
        .select("x", pl.col("x_y").alias("y"), pl.lit(1.0).alias("weight"), pl.lit(value=True).alias("decided"))
    )
    both = pl.concat([compared, rated]).filter(pl.col("x") != pl.col("y"))
    ordered = both.select(pl.min_horizontal("x", "y").alias("a"), pl.max_horizontal("x", "y").alias("b"), "weight", "decided")
    return ordered.group_by("a", "b", maintain_order=True).agg(pl.col("weight").sum(), pl.col("decided").any())
