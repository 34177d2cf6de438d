"""What a response is worth: values as a table, or linear in features of the text.

Conventions
-----------
A utility turns feedback into a `Basis`: a matrix X (n_responses, P) such that the values are V = X W. The columns come in
named parts, each with a prior variance of its own, which the fit estimates. Values are logits of the median careful rater.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from seamark.errors import InvalidSetting, SeamarkError
from seamark.models.conversations import Turns, turns_of
from seamark.models.features import HashEncoder, style_features
from seamark.models.people import Factor, periods, split
from seamark.models.walks import Walk
from seamark.records import Feedback

Array = NDArray[np.float64]

RESIDUALS = 2000
"""Up to this many responses Linear gives each a value of its own beside its features, where they are judged more than twice."""


@dataclass(frozen=True)
class FeatureMap:
    """From texts to columns: learnt on the training responses, applicable to any text."""

    features: str
    """hash, or the name or path of an encoder."""
    style_names: tuple[str, ...]
    style_mean: Array
    style_sd: Array
    content_mean: Array
    """(P_content,) subtracted from the content columns."""
    style_range: Array
    """(2, P_style) lowest and highest standardised style seen; beyond it a text counts as if it were at the end of it, or a policy
    could walk along one style direction for ever."""
    least_content: float = 0.0
    """Smallest norm of the content columns seen."""
    hasher: HashEncoder | None = None
    knots: tuple[Array, ...] = ()
    """Of each style column, where what it is worth may bend; nothing where it may not."""
    bend_mean: Array = field(default_factory=lambda: np.zeros(0))
    """(P_bends,) subtracted from the hinges."""

    @staticmethod
    def fit(turns: Sequence[Turns], *, features: str, style: bool, bends: bool, n_columns: int, seed: int) -> tuple[FeatureMap, Array]:
        """The map, and the columns of the responses it was learnt on: (n, P) with the style block first, then its bends."""
        texts = [text for _, text in turns]
        hasher = HashEncoder.fit(texts, n_columns=n_columns, seed=seed) if features == "hash" else None
        block = style_features(texts)
        values = block.values if style else block.values[:, :0]
        sd = values.std(0)
        mean, sd = values.mean(0), np.where(sd > 1e-9, sd, np.inf)
        content = _encode(features, hasher, turns)
        standard = (values - mean) / sd
        seen = np.stack([standard.min(0), standard.max(0)])
        knots = tuple(_knots(column) for column in standard.T) if bends else ()
        hinges = hinges_of(standard, knots)
        fitted = FeatureMap(
            features, block.names if style else (), mean, sd, content.mean(0), seen, float(np.linalg.norm(content, axis=1).min()), hasher, knots,
            hinges.mean(0),
        )  # fmt: skip
        return fitted, np.hstack([standard, hinges - fitted.bend_mean, content - fitted.content_mean])

    @property
    def parts(self) -> tuple[tuple[str, slice], ...]:
        """The columns by what shares a prior variance: lines of style, the bends of each style feature, content."""
        names = ["style", *(f"style:{name}" for name, knots in zip(self.style_names, self.knots, strict=False) if len(knots)), "content"]
        sizes = [len(self.style_names), *(len(knots) for knots in self.knots if len(knots)), len(self.content_mean)]
        ends = np.cumsum(sizes).tolist()
        return tuple((name, slice(end - n, end)) for name, n, end in zip(names, sizes, ends, strict=True) if n)

    @property
    def n_columns(self) -> int:
        return len(self.style_mean) + len(self.bend_mean) + len(self.content_mean)

    def columns(self, turns: Sequence[Turns]) -> tuple[Array, NDArray[np.bool_]]:
        """(n, P): the standardised style block within its range, its bends, the centred content block; (n,) texts unlike all seen.

        Unlike: a style beyond the range seen by more than half of it (and two standard deviations), or less than half of the
        least content seen: gibberish, one character repeated, nothing at all.
        """
        texts = [text for _, text in turns]
        style = (style_features(texts).values[:, : len(self.style_names)] - self.style_mean) / self.style_sd
        low, high = self.style_range
        margin = np.maximum((high - low) / 2, 2.0)
        content = _encode(self.features, self.hasher, turns)
        outside = ((style < low - margin) | (style > high + margin)).any(1)
        outside |= np.linalg.norm(content, axis=1) < 0.5 * self.least_content
        style = np.clip(style, low, high)
        return np.hstack([style, hinges_of(style, self.knots) - self.bend_mean, content - self.content_mean]), outside

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {name: getattr(self, name) for name in ("style_mean", "style_sd", "content_mean", "style_range")}
        arrays["least_content"] = np.array([self.least_content])
        if self.knots:
            arrays |= {"bend_mean": self.bend_mean, "knots": np.concatenate(self.knots), "n_knots": np.array([len(k) for k in self.knots])}
        if self.hasher is not None:
            arrays |= {f"hasher.{name}": value for name, value in self.hasher.to_arrays().items()}
        return arrays

    @staticmethod
    def from_arrays(features: str, style_names: Sequence[str], arrays: dict[str, NDArray[Any]]) -> FeatureMap:
        hashed = {name.removeprefix("hasher."): value for name, value in arrays.items() if name.startswith("hasher.")}
        return FeatureMap(
            features,
            tuple(style_names),
            arrays["style_mean"],
            arrays["style_sd"],
            arrays["content_mean"],
            arrays["style_range"],
            float(arrays["least_content"][0]),
            HashEncoder.from_arrays(hashed) if hashed else None,
            tuple(np.split(arrays["knots"], np.cumsum(arrays["n_knots"])[:-1])) if "knots" in arrays else (),
            arrays.get("bend_mean", np.zeros(0)),
        )


KNOTS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 0.999)
"""Quantiles of the training responses: closest where there is most of a feature, which is where policies go."""


def _knots(column: Array) -> Array:
    """Where the worth of a style feature may bend: between the least and the most seen, each place once."""
    at: Array = np.unique(np.quantile(column, KNOTS)).astype(np.float64)
    return at[(at > column.min()) & (at < column.max())]


def hinges_of(style: Array, knots: tuple[Array, ...]) -> Array:
    """(n, P_bends) how far each style column lies above each of its knots."""
    each = [np.maximum(style[:, j : j + 1] - at, 0) for j, at in enumerate(knots)]
    return np.hstack(each) if each else np.zeros((len(style), 0))


def _encode(features: str, hasher: HashEncoder | None, turns: Sequence[Turns]) -> Array:
    """(n, P_content) content columns before centring: of the text alone, or where a language model reads them, of text in prompt."""
    texts = [text for _, text in turns]
    if hasher is not None:
        return hasher.encode(texts).astype(np.float64)
    from seamark.models.network import encode_texts, reads_conversations

    if reads_conversations(features):
        from seamark.models.checkpoint import open_reader

        return open_reader(features).read(turns).astype(np.float64)
    return encode_texts(features, texts).astype(np.float64)


@dataclass(frozen=True)
class Basis:
    """X, and how to make it for other responses."""

    n_responses: int
    matrix: Array | None
    """(n_responses, P); None is the identity."""
    parts: tuple[tuple[str, slice], ...]
    """Named column ranges, each with a prior variance of its own."""
    features: FeatureMap | None = None
    response_ids: tuple[str, ...] = field(default=(), repr=False)
    """Content ids of the rows, for the identity and the residual part; with a walk, of the responses that its nodes are of."""
    walk: Walk | None = None
    """Where values move: the rows are the nodes of this walk."""
    _last: list[tuple[pl.DataFrame, Rows]] = field(default_factory=list, init=False, repr=False, compare=False)

    def to_record(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What is written of it: JSON-ready, and arrays. The rows themselves are not."""
        features = self.features
        record = {
            "n_responses": self.n_responses,
            "parts": [[name, s.start, s.stop] for name, s in self.parts],
            "response_ids": self.response_ids,
            "walk": self.walk.to_dict() if self.walk else None,
            "features": features.features if features else None,
            "style_names": features.style_names if features else [],
        }
        return record, {f"features.{name}": value for name, value in features.to_arrays().items()} if features else {}

    @staticmethod
    def from_record(record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Basis:
        """The basis that `to_record` wrote; `arrays` may hold others as well."""
        features = None
        if record["features"] is not None:
            held = {name.removeprefix("features."): value for name, value in arrays.items() if name.startswith("features.")}
            features = FeatureMap.from_arrays(record["features"], record["style_names"], held)
        matrix = None if features is None else np.zeros((0, features.n_columns))
        walk = Walk.from_dict(record["walk"]) if record.get("walk") else None
        parts = tuple((name, slice(start, stop)) for name, start, stop in record["parts"])
        return Basis(record["n_responses"], matrix, parts, features, tuple(record["response_ids"]), walk)

    @property
    def residual(self) -> slice | None:
        """Columns of the part that gives each training response a value of its own beside its features."""
        return dict(self.parts).get("residual")

    @property
    def n_columns(self) -> int:
        return self.parts[-1][1].stop

    # X = [features | identity], either half possibly absent; the identity is never written out

    @property
    def _n_features(self) -> int:
        return 0 if self.matrix is None else self.matrix.shape[1]

    @property
    def _has_identity(self) -> bool:
        return self.matrix is None or self.residual is not None

    def times(self, W: Any) -> Any:
        """X W; sparse only if W is, which the identity alone can have."""
        if self.matrix is None:
            return W
        product = self.matrix @ W[: self._n_features]
        return product + W[self._n_features :] if self._has_identity else product

    def transpose_times(self, Y: Array) -> Array:
        """X' Y"""
        if self.matrix is None:
            return Y
        product = self.matrix.T @ Y
        return np.vstack([product, Y]) if self._has_identity else product

    def times_left(self, A: csr_array) -> Array:
        """A X, dense."""
        if self.matrix is None:
            return A.toarray()
        product = A @ self.matrix
        return np.hstack([product, A.toarray()]) if self._has_identity else product

    def gram(self, A: csr_array) -> Array:
        """X' A X for a symmetric A, dense."""
        if self.matrix is None:
            return A.toarray()
        AX = A @ self.matrix
        product = self.matrix.T @ AX
        return np.block([[product, AX.T], [AX, A.toarray()]]) if self._has_identity else product

    def rows_for(self, feedback: Feedback, period: int | None = None) -> Rows:
        """The rows of X for the responses of any feedback; those of the last two tables asked for are kept.

        Where values move, those of a period; left out, of the last one judged.
        """
        if self.walk is not None:
            seen = self.numbers(feedback)
            return self.walk_rows(seen, self.walk.last if period is None else period)
        for table, rows in self._last:
            if table is feedback.responses:
                return rows
        rows = self._rows(feedback)
        self._last[:] = [*self._last[-1:], (feedback.responses, rows)]
        return rows

    def _rows(self, feedback: Feedback) -> Rows:
        seen = self.numbers(feedback)
        if self.features is None:
            return Rows(None, np.maximum(seen, 0), seen >= 0, np.zeros(len(seen)), np.zeros(len(seen), dtype=bool))
        texts = feedback.responses["text"]
        columns, outside = self.features.columns(turns_of(feedback))
        known = texts.is_not_null().to_numpy()
        new = np.zeros(len(seen)) if self.residual is None else (seen < 0).astype(float)
        return Rows(columns, seen, known, new, outside)

    def numbers(self, feedback: Feedback) -> NDArray[np.int64]:
        """(n_responses,) number of each response of a feedback in `response_ids`; -1 where it was not fitted."""
        lookup = {name: row for row, name in enumerate(self.response_ids)}
        return np.array([lookup.get(name, -1) for name in feedback.responses["id"].to_list()], dtype=np.int64)

    def walk_rows(self, response: NDArray[np.int64], period: NDArray[np.int64] | int) -> Rows:
        """The rows of responses (n,), numbered as in `response_ids`, in periods."""
        assert self.walk is not None
        one, two, weight, doubt = self.walk.place(response, period)
        return Rows(None, one, response >= 0, doubt, np.zeros(len(one), dtype=bool), two, weight)


@dataclass(frozen=True)
class Rows:
    """Rows of a basis for some responses."""

    columns: Array | None
    """(n, P_features); None for the identity alone."""
    index: NDArray[np.int64]
    """(n,) row of each response in the training data; below 0 where it was not in it."""
    known: NDArray[np.bool_]
    """(n,) whether the fit can speak about the response at all."""
    new: Array
    """(n,) 1 where the residual part applies to a response that was not in the training data: its value is 0, its variance the prior's.
    Where values move, the steps whose variance there is beside the nodes'."""
    outside: NDArray[np.bool_]
    """(n,) whether the response is unlike everything in the training data."""
    other: NDArray[np.int64] | None = None
    """(n,) where values move, the node after; `index` is the one before."""
    weight: Array | None = None
    """(n,) what the node after counts."""

    def times(self, W: Any) -> Any:
        """X W; sparse only if W is, which the identity alone can have."""
        if self.other is not None and self.weight is not None:
            between = self.weight.reshape(-1, *(1 for _ in W.shape[1:]))
            return (1 - between) * W[self.index] + between * W[self.other] if self.weight.any() else W[self.index]
        if self.columns is None:
            return W[self.index]
        P = self.columns.shape[1]
        product = self.columns @ W[:P]
        if len(W) > P:
            product += np.where((self.index >= 0)[:, None], W[P + np.maximum(self.index, 0)], 0.0)
        return product


def squared_rows(factor: Any) -> Array:
    """(n,) squared length of each row of a dense or sparse factor: the variances that it stands for."""
    return np.asarray(factor.power(2).sum(1)) if issparse(factor) else (factor**2).sum(1)


class Utility(Protocol):
    def prepare(self, feedback: Feedback) -> Basis: ...

    def factors(self, feedback: Feedback) -> tuple[Factor, ...]:
        """What, beside people, values differ by."""
        ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Tabular:
    """A value of its own for each response: a leaderboard, or items judged many times. Says nothing about new responses."""

    def prepare(self, feedback: Feedback) -> Basis:
        n = feedback.n_responses
        return Basis(n, None, (("values", slice(0, n)),), response_ids=tuple(feedback.responses["id"].to_list()))

    def factors(self, feedback: Feedback) -> tuple[Factor, ...]:  # noqa: ARG002  # the protocol's signature
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {"utility": "Tabular"}


@dataclass(frozen=True)
class Linear:
    """Values linear in features of the text: a content block, and a block of length and style that enters once."""

    features: str = "hash"
    """hash: hashed word and character n-grams; else the name or path of a sentence-transformers or transformers encoder."""
    style: bool = True
    bends: bool = False
    """Whether what a feature of style is worth may bend: hinges at quantiles of the training responses beside its line, those of each
    feature with a prior variance of their own. Without them a fit cannot foresee that more becomes too much (decision 0027)."""
    n_columns: int = 1024
    """Columns of the hash block, at most 1024."""
    residual: bool | None = None
    """Whether each training response also has a value of its own, for what its features do not say. Without it, judgments of few
    texts by many people make the fit too sure, and every effect is pulled towards 0. None: where responses are judged more
    than twice on average, and there are at most 2,000 of them."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_columns <= 1024:
            raise InvalidSetting("n_columns", self.n_columns, "Use 1 to 1024.")
        if self.features != "hash" and self.features.startswith((".", "/", "~")) and not Path(self.features).expanduser().is_dir():
            raise InvalidSetting("features", self.features, "There is no such folder; use hash, or an encoder's name or path.")

    def prepare(self, feedback: Feedback) -> Basis:
        texts = feedback.responses["text"]
        if texts.null_count():
            raise SeamarkError(
                f"{texts.null_count()} of {len(texts)} responses have no text, so Linear has no features for them. Use Tabular()."
            )
        features, matrix = FeatureMap.fit(
            turns_of(feedback),
            features=self.features,
            style=self.style,
            bends=self.bends and self.style,
            n_columns=self.n_columns,
            seed=self.seed,
        )
        P, n, parts = matrix.shape[1], feedback.n_responses, features.parts
        shown = int(feedback.judgments["responses"].list.len().sum())
        if self.residual or (self.residual is None and n <= RESIDUALS and shown > 2 * n):
            ids = tuple(feedback.responses["id"].to_list())
            return Basis(n, matrix, (*parts, ("residual", slice(P, P + n))), features, ids)
        return Basis(n, matrix, parts, features=features)

    def factors(self, feedback: Feedback) -> tuple[Factor, ...]:  # noqa: ARG002  # the protocol's signature
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "utility": "Linear",
            "features": self.features,
            "style": self.style,
            "bends": self.bends,
            "n_columns": self.n_columns,
            "residual": self.residual,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Network:
    """A language model, trained on the judgments by the one likelihood; then its last layer is fitted anew as `Linear` on what it reads.

    Training finds the features, prompt by prompt; the fit that follows finds the values that are linear in them, the raters and all else
    together, with intervals that say how sure the last layer is (Laplace's, as Kristiadi et al. 2020 do), not how sure the features are.
    """

    model: str
    """Folder or hub name of a language model or reward model, or of an encoder."""
    out: str
    """Folder that the trained reward model is written to; a run that was stopped goes on from there."""
    head: str | Mapping[str, Any] = "linear"
    """What training puts on the features (`seamark.models.heads`): linear, mean_variance, ensemble, ..."""
    held_back: float = 0.0
    """Share of the prompts that training does not see and the fit that follows is made of; 0: it is made of all."""
    style: bool = False
    """Whether the fit has a block of length and style beside the features."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `seamark.models.training.NetworkConfig`: learning_rate, num_train_epochs, tokens_per_batch, max_length, ..."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_back <= 0.9:
            raise InvalidSetting("held_back", self.held_back, "Use a share of the prompts between 0 and 0.9.")
        if "output_dir" in self.settings:
            raise InvalidSetting("settings", "output_dir", "The folder is `out`.")

    def trained(self) -> Linear:
        """The utility that is fitted once the network is trained."""
        return Linear(str(Path(self.out).expanduser().resolve()), style=self.style)

    def prepare(self, feedback: Feedback) -> Basis:
        return self.trained().prepare(feedback)

    def factors(self, feedback: Feedback) -> tuple[Factor, ...]:  # noqa: ARG002  # the protocol's signature
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "utility": "Network",
            "model": self.model,
            "out": self.out,
            "head": self.head if isinstance(self.head, str) else dict(self.head),
            "held_back": self.held_back,
            "style": self.style,
            "settings": dict(self.settings),
        }


@dataclass(frozen=True)
class MultiAxis:
    """Several axes at once: the values of an axis are a shared value plus deviations, partially pooled: u_a = V_0 + V_a.

    A judgment counts for the axis it was made on; judgments without one inform the shared value. Each response need not be judged on
    every axis: what is shared fills the gaps, as far as the axes agree.
    """

    utility: Tabular | Linear | Network | None = None
    """None: chosen from the data."""
    by: str = "axis"
    min_judgments: int = 30
    """Axes with fewer judgments inform the shared value only."""

    def prepare(self, feedback: Feedback) -> Basis:
        return (self.utility or default_utility(feedback)).prepare(feedback)

    def factors(self, feedback: Feedback) -> tuple[Factor, ...]:
        return (split(feedback, "axis", self.by, self.min_judgments, "use the utility inside"),)

    def to_dict(self) -> dict[str, Any]:
        return {
            "utility": "MultiAxis",
            "of": self.utility.to_dict() if self.utility else None,
            "by": self.by,
            "min_judgments": self.min_judgments,
        }


@dataclass(frozen=True)
class Context:
    """Values that depend on the context of the judgment: u_c = V_0 + V_c, partially pooled; `by` is a column such as pair_type."""

    by: str
    utility: Tabular | Linear | Network | None = None
    """None: chosen from the data."""
    min_judgments: int = 30
    """Contexts with fewer judgments inform the shared value only."""

    def prepare(self, feedback: Feedback) -> Basis:
        return (self.utility or default_utility(feedback)).prepare(feedback)

    def factors(self, feedback: Feedback) -> tuple[Factor, ...]:
        return (split(feedback, "context", self.by, self.min_judgments, "use the utility inside"),)

    def to_dict(self) -> dict[str, Any]:
        return {
            "utility": "Context",
            "of": self.utility.to_dict() if self.utility else None,
            "by": self.by,
            "min_judgments": self.min_judgments,
        }


MOST_PERIODS = 60
"""Beyond, the values of all periods no longer fit in one matrix for more than a few responses."""


@dataclass(frozen=True)
class Dynamic:
    """Values that move: in each period those of the one before plus a normal step, whose size is estimated (a random walk).

    With a Tabular utility there may be any number of periods, and a path begins when its response is first judged; the weights of
    features move in up to 60. Steps of 0 are what data without drift end in. That the mix of raters moves is another thing: it shows
    in who judges, and is kept apart by people and reliability.

    Source: Glickman 1999; Coulom 2008 (whole-history rating), with the size of the steps estimated instead of given.
    """

    every: timedelta
    utility: Tabular | Linear | None = None
    """None: chosen from the data."""

    def prepare(self, feedback: Feedback) -> Basis:
        return (self.utility or default_utility(feedback)).prepare(feedback)

    def factors(self, feedback: Feedback) -> tuple[Factor, ...]:
        return () if self.walks(feedback) else (periods(feedback, self.every, MOST_PERIODS),)

    def walks(self, feedback: Feedback) -> bool:
        """Whether each response has a path of its own, rather than the weights of features."""
        return isinstance(self.utility or default_utility(feedback), Tabular)

    def to_dict(self) -> dict[str, Any]:
        return {"utility": "Dynamic", "of": self.utility.to_dict() if self.utility else None, "every_s": self.every.total_seconds()}


def default_utility(feedback: Feedback) -> Tabular | Linear:
    """Linear on hashed n-grams where the responses have texts, else Tabular."""
    return Linear() if feedback.responses["text"].null_count() == 0 else Tabular()


def utility_from_dict(record: Mapping[str, Any]) -> Utility:
    """The utility that `to_dict` described; a network as the features that it was trained to be."""
    kind, rest = record["utility"], {name: value for name, value in record.items() if name not in ("utility", "of", "every_s")}
    if kind in ("Tabular", "Linear"):
        return Tabular() if kind == "Tabular" else Linear(**rest)
    if kind == "Network":
        return Network(**rest).trained() if record.get("out") else Linear(record["model"], style=False)
    inside: Any = utility_from_dict(record["of"]) if record["of"] else None
    if kind == "Dynamic":
        return Dynamic(timedelta(seconds=record["every_s"]), inside)
    return MultiAxis(inside, **rest) if kind == "MultiAxis" else Context(utility=inside, **rest)
