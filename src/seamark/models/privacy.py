"""Privacy that travels with the data: what a mechanism did to the labels, stated in each record, and what it takes to read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.columns import PRIVACY, PRIVACY_FORM
from seamark.errors import InvalidSetting
from seamark.records import Feedback

Number = float | NDArray[np.float64]
Cleaned = Literal["before", "after", "never"]
_STATEMENT = re.compile(PRIVACY)
_TELLTALE = ("strength", "strength_levels", "confidence", "seconds", "rationale", "reason")
"""Fields of a judgment that give its answer away, in whole or in part."""
_OTHER: Mapping[str, str] = MappingProxyType({"left": "right", "right": "left"})


def flip_rate(epsilon: Number) -> Number:
    """Flip rate of randomised response that is epsilon-differentially private: e = 1 / (1 + exp(epsilon)).

    Whichever label is seen, it moves the odds of the true one by a factor of exp(epsilon) = (1 - e) / e at most (Warner 1965).

    `Privacy` says how this, and the order of privatisation and cleaning, travels with the data.
    """
    if not (np.asarray(epsilon) >= 0).all():
        raise InvalidSetting("epsilon", epsilon, "Privacy loss is at least 0, in nats.")
    return np.exp(-np.logaddexp(0.0, epsilon))


@dataclass(frozen=True)
class Privacy:
    """What happened to a label between the rater and the record: the text of a record's `privacy`.

        randomised_response(epsilon=1.0); cleaned=before
        none

    *Randomised response* keeps one of two answers with probability exp(epsilon) / (1 + exp(epsilon)) and gives the other one otherwise;
    one of C with probability exp(epsilon) / (exp(epsilon) + C - 1), and each other one alike (Kairouz, Bonawitz & Ramage 2016). Each
    label on its own: k labels of one rater cost k epsilon of their privacy. `fit` reads it and undoes it. *none* says that labels are as they were given; no
    text at all says nothing.

    *cleaned* says when labels were removed or changed by somebody who looked at them (those who look at anything else, such as at
    texts or at times, change no flip rate). The order decides what correcting for flips does (Zhou, Wu & Orabona 2025):

    before  labels went bad, and were cleaned or not, before the mechanism (corruption, then privacy: CTL). All passed it alike, and
            correcting restores their plain weight.
    after   labels were set or picked after it (privacy, then corruption: LTC). The flip rate is not that of the mechanism any more,
            and correcting multiplies the harm of each label set then by `amplification`. Privacy itself holds: what is done to the
            output of the mechanism cannot undo it.
    never   no one did, at either time.
    """

    epsilon: float = np.inf
    """Privacy loss of one label, in nats; infinite without a mechanism."""
    cleaned: Cleaned | None = None
    """None: not stated."""

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise InvalidSetting("epsilon", self.epsilon, "Privacy loss is above 0, in nats; at 0 labels would carry nothing.")
        if self.cleaned not in (None, "before", "after", "never"):
            raise InvalidSetting("cleaned", self.cleaned, "Use before, after or never.")

    def __str__(self) -> str:
        mechanism = "none" if self.epsilon == np.inf else f"randomised_response(epsilon={self.epsilon!r})"
        return mechanism if self.cleaned is None else f"{mechanism}; cleaned={self.cleaned}"

    @staticmethod
    def parse(text: str) -> Privacy:
        """The statement that a text makes.

        Raises
        ------
        InvalidSetting
            If it is none, with the form it should have.

        >>> Privacy.parse("randomised_response(epsilon=1.0); cleaned=before")
        Privacy(epsilon=1.0, cleaned='before')
        """
        found = _STATEMENT.fullmatch(text.strip())
        if found is None:
            raise InvalidSetting("privacy", text, PRIVACY_FORM)
        epsilon = np.inf if found[1] is None else float(found[1])
        if not epsilon > 0 or (found[1] is not None and epsilon == np.inf):
            raise InvalidSetting("privacy", text, "Privacy loss is a positive number of nats; without a mechanism write none.")
        return Privacy(epsilon, cast("Cleaned | None", found[2]))

    @property
    def flips(self) -> float:
        """Probability that the mechanism flipped a label."""
        return 0.0 if self.epsilon == np.inf else float(flip_rate(self.epsilon))

    @property
    def amplification(self) -> float:
        """Factor by which correcting for the flips multiplies the harm of a label set after the mechanism: 1 / (1 - 2 e)."""
        return 1 / (1 - 2 * self.flips)


def flip_rates(feedback: Feedback, *, unstated: float | None = None, cleaned_after: bool = False) -> NDArray[np.float64]:
    """(n_judgments,) flip rate of each answer under the mechanism its record states; 0 where there is no answer to be flipped.

    For `Channel`, for `label_dp` as `robust(rates)`, and for `seamark.models.distributional.fit_distribution(flips=)`.

    Parameters
    ----------
    unstated
        Rate of answers whose record states nothing. None: refuse them, since "not said" is not "not flipped".
    cleaned_after
        Whether to go on where labels were cleaned after the mechanism, though the rate is not theirs any more.

    Raises
    ------
    InvalidSetting
        If a statement cannot be read or is missing; if labels were cleaned after; if an answer is not one of two, so that a
        mechanism that gives one of two cannot have given it.
    """
    frame = feedback.judgments.select("kind", "outcome", "privacy").with_row_index("row")
    answered = frame.filter(~pl.col("outcome").is_in(["cannot_tell", "skipped"]))
    out = np.zeros(feedback.n_judgments)
    for (text,), rows in answered.group_by(["privacy"]):
        row = rows["row"].to_numpy()
        if text is None:
            if unstated is None:
                raise InvalidSetting(
                    "privacy", None, f"{rows.height:,} answers do not state it. If they were not flipped, say so with unstated=0."
                )
            if not 0 <= unstated < 0.5:
                raise InvalidSetting("unstated", unstated, "A flip rate is in [0, 1/2).")
            out[row] = unstated
            continue
        stated = Privacy.parse(str(text))
        if stated.flips == 0:
            continue
        two = (pl.col("kind") == "thumbs") | ((pl.col("kind") == "pair") & pl.col("outcome").is_in(["left", "right"]))
        if other := rows.filter(~two).height:
            raise InvalidSetting("privacy", text, f"{other:,} answers are not one of two, which is all that randomised response gives.")
        if stated.cleaned == "after" and not cleaned_after:
            raise InvalidSetting(
                "privacy", text, "Labels were picked or set after the mechanism, so its flip rate is not theirs: correcting multiplies the "
                f"harm of each of those by {stated.amplification:.3g}. Clean before, or pass cleaned_after=True to go on.",
            )  # fmt: skip
        out[row] = stated.flips
    return out


def privatise(feedback: Feedback, *, epsilon: float, rng: np.random.Generator, cleaned: Cleaned | None = None) -> Feedback:
    """The same feedback after randomised response on every pair and thumb answered, stated in each record's `privacy`.

    What would give the answer away is taken out: strength, confidence, time taken, reason and rationale. It belongs where labels
    are made, before anybody else sees them. `rng` must then be one that nobody can guess; NumPy's own can be, and are for studies.

    Raises
    ------
    InvalidSetting
        If a record states a mechanism already, or an answer is not one of two: leave ties and other kinds out first.
    """
    frame = feedback.judgments
    answered = ~frame["outcome"].is_in(["cannot_tell", "skipped"])
    stated = frame.filter(answered & frame["privacy"].is_not_null())["privacy"].unique().to_list()
    if any(Privacy.parse(text).flips for text in stated):
        raise InvalidSetting("privacy", stated[0], "These labels passed a mechanism already; a second one has another flip rate.")
    pair = answered & (frame["kind"] == "pair") & frame["outcome"].is_in(["left", "right"])
    thumb = answered & (frame["kind"] == "thumbs")
    if n := int((answered & ~pair & ~thumb).sum()):
        raise InvalidSetting("privatise", f"{n:,} answers", "They are not one of two; leave ties and other kinds of judgment out.")
    text = Privacy(epsilon, cleaned)
    turned = pl.Series(rng.random(frame.height) < text.flips)
    judgments = frame.with_columns(
        pl.when(turned & pair).then(pl.col("outcome").replace(_OTHER)).otherwise(pl.col("outcome")).alias("outcome"),
        pl.when(turned & thumb).then(~pl.col("thumb")).otherwise(pl.col("thumb")).alias("thumb"),
        pl.when(answered).then(pl.lit(str(text))).otherwise(pl.col("privacy")).alias("privacy"),
        *(pl.lit(None, dtype=frame.schema[name]).alias(name) for name in _TELLTALE if name in frame.columns),
    )
    return replace(feedback, judgments=judgments)
