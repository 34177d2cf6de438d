"""The likelihood as an objective for networks: values come from outside in batches, all else of the model is fitted beside them.

Conventions
-----------
A network yields values V (n_responses, k) a batch at a time. What judgments say of them goes through contrasts c = K (V Z')[shown], and

    sum_j sum_q p_rq log p(y_j | c_j b_rq exp(x_j g) + D_j f)

is maximised: p_rq is the posterior of rater r's slope and latent level at the last refit, whose gradient in V is that of the likelihood
with raters integrated out (Fisher's identity). At a refit the shifts f and the shape t go to their mode by Newton steps, and
slopes to their posterior, with the values that the network gave each response last held fixed (generalised EM, Dempster et al. 1977).
In the first pass through the data those values are from before the network learnt from their judgments, so raters are judged
out of sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from seamark.errors import InvalidSetting
from seamark.models.likelihood import Cells, Likelihood
from seamark.models.observation import Choice, Missing, Observation, Rating, decided_sides
from seamark.models.people import People, Same, columns_of
from seamark.models.problem import Problem, pose
from seamark.models.search import Search, optimise
from seamark.models.slopes import Classes, Slopes
from seamark.models.utility import Basis, Context, MultiAxis, Tabular
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_STEPS = 5
"""Most Newton steps of shifts and shape at a refit, with an E-step after each: they start near where they end."""
_SETTLED = 0.01
"""Where neither a parameter nor a posterior probability moves by more, a refit ends."""
_FURTHEST = 1.0
"""Most that one of them moves in a step, in logits or log units."""
_RATED_TOGETHER = 20
"""Ratings by the same rater to the same prompt, each compared with as many after it."""
_PARTS = (2, 4, 8, 16, 32)
"""A part of a piece that is too large is such a fraction of the budget."""
_MIXED = 1.25
"""Most that smaller parts may cost of what the largest do. On UKPConvArg1 (debates of 33 arguments, batches of 2,048 tokens) an epoch
of batches of one or two debates leaves values at half the scale of those that batches of eight judgments from anywhere lead to."""
_NOTHING = 1e-9
"""A node of less posterior mass than this in all cells of a batch is left out."""


@dataclass(frozen=True)
class Piece:
    """Responses that are read together, and the cells about them alone."""

    responses: Codes
    """(n,) codes in the feedback."""
    cells: tuple[Codes, ...]
    """Per block, rows."""


@dataclass
class Objective:
    """All judgments, and what is fitted beside the values."""

    problem: Problem
    search: Search
    shift: list[Array]
    """Per block, the part of the contrast that slopes do not scale."""
    scales: list[Array | None]

    @staticmethod
    def of(
        feedback: Feedback,
        *,
        people: People | None = None,
        observation: Observation | None = None,
        differ: MultiAxis | Context | None = None,
    ) -> Objective:
        """The objective of some judgments; `differ` says what values differ by beside people, and has no utility of its own.

        Raises
        ------
        InvalidSetting
            As `fit` does.
        """
        table = Tabular() if differ is None else replace(differ, utility=Tabular())
        problem = pose(feedback, utility=table, people=people, observation=observation, require_identified=False)
        likelihood, strata, slopes = problem.likelihood, problem.strata, None
        if problem.reliable:
            opposed = isinstance(problem.people, Same)
            slopes = Slopes.start(likelihood.design.n_raters, opposed=opposed, level_share=strata.share, learnt=strata.learnt)
        elif strata.latent is not None:
            slopes = Classes(likelihood.design.n_raters, strata.share, strata.learnt)
        search = Search.start(likelihood, slopes, strata.factors)
        search.look()
        objective = Objective(problem, search, [], [])
        objective._hold()
        # cut points, ties and sides start where they are right while all values are alike: else the first steps push every value one way
        objective.refit(np.zeros((feedback.n_responses, objective.n_values)))
        return objective

    @property
    def likelihood(self) -> Likelihood:
        return self.search.likelihood

    @property
    def loadings(self) -> Array:
        """Z (n_groups, k)"""
        return self.likelihood.design.loadings

    @property
    def n_values(self) -> int:
        """k"""
        return self.loadings.shape[1]

    @property
    def n_judgments(self) -> float:
        return self.likelihood.design.n_judgments

    def _hold(self) -> None:
        """Keep what batches need of where we stand."""
        contrasts = self.likelihood._contrasts(self.search.x)
        self.shift = [np.zeros_like(scaled) + shift for scaled, shift in contrasts]
        self.scales = self.likelihood._scales(self.search.x)

    def probe(self, features: Array, *, seed: int) -> Array:
        """W (k, H), the values linear in features (n_responses, H) of a network that is not trained yet, fitted with all else by the engine.

        A network starts from it where raters have latent levels: with values that are the same for all levels, nothing would ever part
        them. (Kumar et al. 2022 find that starting so also keeps what a pretrained network knows.)
        """
        problem, n = self.problem, len(features)
        basis = Basis(n, features - features.mean(0), (("content", slice(0, features.shape[1])),))
        likelihood = Likelihood(self.likelihood.design, basis, self.likelihood.observation)
        state = optimise(replace(problem, likelihood=likelihood), max_iterations=200, tolerance=0.01, seed=seed)
        weights = state.x[likelihood.values].reshape(self.n_values, -1)
        if state.slopes is not None:
            self.search.slopes = state.slopes
            self.search.nodes = state.slopes.nodes()
        self.refit(features @ weights.T)
        return weights

    # ------------------------------------------------------------------ batches

    def pieces(self, cost: Callable[[Codes], int], budget: int, *, seed: int) -> list[Piece]:
        """All cells, in pieces whose responses cost at most `budget` together where that can be.

        Responses that meet in a judgment or share a prompt are one piece. Where these cost more, they are dealt into parts of
        half the budget at most, and each two parts whose members meet are a piece: its responses are read once in each. Parts are as
        small as a few more tokens allow, since a batch of several prompts says more than one of many judgments of a single prompt.
        """
        blocks = [c.block for c in self.likelihood.cells]
        label = self._parts(self.problem.feedback)
        order = np.argsort(label, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
        rows: list[dict[int, Codes]] = []
        for b in blocks:
            mine = label[b.shown[:, 0]]
            by_part = np.argsort(mine, kind="stable")
            cuts = np.split(by_part, np.flatnonzero(np.diff(mine[by_part])) + 1)
            rows.append({int(mine[cut[0]]): cut for cut in cuts if len(cut)})
        nothing = np.zeros(0, dtype=np.int64)
        out: list[Piece] = []
        rng = np.random.default_rng(seed)
        for responses in members:
            piece = Piece(responses, tuple(r.get(int(label[responses[0]]), nothing) for r in rows))
            if any(len(c) for c in piece.cells):
                piece = self._without_spectators(piece)
                out += [piece] if cost(piece.responses) <= budget else self._dealt(piece, cost, budget, rng)
        return out

    def _parts(self, feedback: Feedback) -> Codes:
        """(n_responses,) label of what is connected by judgments or by a prompt."""
        n = feedback.n_responses
        prompt = feedback.responses["prompt"].cast(pl.Int64).fill_null(-1).to_numpy()
        known = np.flatnonzero(prompt >= 0)
        one, two = [known], [n + prompt[known]]
        for c in self.likelihood.cells:
            for slot in range(1, c.block.shown.shape[1]):
                one.append(c.block.shown[:, 0])
                two.append(c.block.shown[:, slot])
        rows, columns = np.concatenate(one), np.concatenate(two)
        size = n + feedback.n_prompts
        graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
        return connected_components(graph, directed=False)[1][:n].astype(np.int64)

    def _without_spectators(self, piece: Piece) -> Piece:
        """Only responses that some judgment is about."""
        judged = [c.block.shown[rows].ravel() for c, rows in zip(self.likelihood.cells, piece.cells, strict=True) if len(rows)]
        return Piece(np.unique(np.concatenate(judged)), piece.cells)

    def _dealt(self, piece: Piece, cost: Callable[[Codes], int], budget: int, rng: np.random.Generator) -> list[Piece]:
        """Parts of half the budget, or the smallest that cost little more to read."""
        responses = rng.permutation(piece.responses)
        best: list[Piece] = []
        most = np.inf
        for share in _PARTS:
            found = self._in_parts(piece, responses, cost, budget // share)
            total = sum(cost(p.responses) for p in found)
            if total > most:
                break
            best, most = found, min(most, _MIXED * total)
        return best

    def _in_parts(self, piece: Piece, responses: Codes, cost: Callable[[Codes], int], size: int) -> list[Piece]:
        """A piece for each two parts, of that size, whose members meet."""
        part = np.zeros(self.likelihood.design.n_responses, dtype=np.int64)
        number, held = 0, [int(responses[0])]
        for code in responses[1:]:
            if cost(np.array([*held, code])) > size:
                number, held = number + 1, []
            held.append(int(code))
            part[code] = number
        found: dict[bytes, list[list[Codes]]] = {}
        for b, (c, rows) in enumerate(zip(self.likelihood.cells, piece.cells, strict=True)):
            if not len(rows):
                continue
            # a choice among many may be about more than two parts
            keys = np.sort(part[c.block.shown[rows]], axis=1)
            distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
            for i, key in enumerate(distinct):
                name = np.unique(key).tobytes()
                found.setdefault(name, [[] for _ in piece.cells])[b].append(rows[inverse.ravel() == i])
        nothing = np.zeros(0, dtype=np.int64)
        return [
            self._without_spectators(Piece(nothing, tuple(np.concatenate(r) if r else nothing for r in cells))) for cells in found.values()
        ]

    # ------------------------------------------------------------------ what judgments say of contrasts

    def observed(self, block: int, rows: Codes, contrast: Array, weight: Array | None = None) -> tuple[float, Array]:
        """(loss in nats, its gradient in the contrasts (n, d)) of some cells of a block, at the raters as of the last refit.

        `weight` (n,) counts cells otherwise, as bootstrap members do.
        """
        likelihood, nodes = self.likelihood, self.search.nodes
        c = likelihood.cells[block]
        who, count = c.block.who[rows], c.block.count[rows]
        mass = self.search.posterior[who].T * (count if weight is None else count * weight)
        live = np.flatnonzero(mass.max(axis=1, initial=0.0) > _NOTHING)
        mass, slope = mass[live], nodes.slope[who].T[live]
        scale = self.scales[block]
        along = slope if scale is None else slope * scale[rows]
        z = (along * contrast[:, 0] if c.scalar else along[:, :, None] * contrast) + self.shift[block][rows]
        term = likelihood._terms(c, z, rows, self.search.x, self.shift[block])
        loss = -float((mass * term.log_prob).sum())
        if c.scalar:
            return loss, -(mass * along * term.first).sum(0)[:, None]
        return loss, -((mass * along)[:, :, None] * term.first).sum(0)

    def cells(self, block: int) -> Cells:
        return self.likelihood.cells[block]

    def prompts(self, block: int, rows: Codes) -> Codes:
        """(n,) prompt code of the first response of some cells; where there is none, a code of the response's own."""
        feedback = self.problem.feedback
        first = self.likelihood.cells[block].block.shown[rows, 0]
        prompt = feedback.responses["prompt"].cast(pl.Int64).fill_null(-1).to_numpy()[first]
        return np.where(prompt >= 0, prompt, feedback.n_prompts + first)

    @property
    def person(self) -> Array:
        """(k,) how the mean person weighs the values, in the mean of all that they differ by beside."""
        strata = self.problem.strata
        out = np.zeros(self.n_values)
        out[0] = 1.0
        for name, mine in columns_of(strata.factors).items():
            factor = next(f for f in strata.factors if f.name == name)
            learnt = self.search.slopes.level_share if factor.latent and self.search.slopes is not None else factor.share
            out[mine.start : mine.stop] = learnt @ factor.loadings[:-1]
        return out

    def comparisons(self) -> tuple[Codes, Codes, Array]:
        """(better, worse, weight) of all comparisons that judgments decided, or imply: ratings by the same rater to the same prompt, and
        what was chosen among many against each of the others."""
        levels, R = self.likelihood.design.levels, self.likelihood.design.n_raters
        found: list[tuple[Codes, Codes, Array]] = []
        for number, c in enumerate(self.likelihood.cells):
            b = c.block
            # with latent levels every cell of a known rater stands once for each
            once = np.flatnonzero((b.who % levels == 0) | (b.rater == R)) if levels > 1 else np.arange(len(b.who))
            shown, outcome, count, m = b.shown[once], b.outcome[once], b.count[once], b.shown.shape[1]
            if isinstance(b.family, Rating):
                prompt = np.minimum(self.prompts(number, once), self.problem.feedback.n_prompts)
                group = b.rater[once] * (self.problem.feedback.n_prompts + 1) + prompt
                order = np.argsort(group, kind="stable")
                for apart in range(1, _RATED_TOGETHER):
                    one, two = order[:-apart], order[apart:]
                    same = (group[one] == group[two]) & (outcome[one] != outcome[two])
                    high = np.where(outcome[one] > outcome[two], one, two)[same]
                    low = np.where(outcome[one] > outcome[two], two, one)[same]
                    found.append((shown[high, 0], shown[low, 0], np.minimum(count[high], count[low])))
            elif m == 2 and not isinstance(b.family, Missing):
                for outcomes, won in zip(decided_sides(b.family), (0, 1), strict=True):
                    rows = np.isin(outcome, outcomes)
                    found.append((shown[rows, won], shown[rows, 1 - won], count[rows]))
            elif m > 2 and isinstance(b.family, Choice):
                row = np.arange(len(outcome))
                for other in range(1, m):
                    found.append((shown[row, outcome], shown[row, (outcome + other) % m], count / (m - 1)))
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
        better, worse, weight = (np.concatenate(part) for part in zip(*found, strict=True))
        return better, worse, weight

    # ------------------------------------------------------------------ everything but the values

    def refit(self, values: Array) -> None:
        """Shifts, shape and raters, given values (n_responses, k); cells about responses whose values are NaN are left out."""
        search, known = self.search, np.asarray(np.isfinite(values).all(1))
        whole = search.likelihood
        counts = [c.block.count * known[c.block.shown].all(1) for c in whole.cells]
        if not sum(float(c.sum()) for c in counts):
            return
        likelihood = whole.weighed(counts)
        search.likelihood = likelihood
        search.x[likelihood.values] = np.where(known[:, None], values, 0.0).T.ravel()
        search.look()
        free = slice(likelihood.n_values, likelihood.size)
        seen = np.zeros(len(self.problem.seen))
        for c in likelihood.cells:
            seen += np.bincount(c.block.rater, weights=c.block.count, minlength=len(seen) + 1)[:-1]
        if search.slopes is not None and not (seen > 0).any():
            search.likelihood = whole
            return
        for _ in range(_STEPS):
            moved = 0.0
            if likelihood.size > likelihood.n_values:
                gradient, curvature = likelihood.beside_values(search.x, search.nodes, search.posterior)
                gradient = gradient - search.prior.pull(search.x)[free]
                step = spsolve(csc_array(curvature + diags_array(search.prior.precision[free])), gradient)
                step = np.clip(np.asarray(step, dtype=np.float64).reshape(-1), -_FURTHEST, _FURTHEST)
                search.x[free] += step
                moved = float(np.abs(step).max())
            before = search.posterior
            search.look()
            if search.slopes is not None:
                search.slopes.update(search.log_joint, seen > 0)
                search.nodes = search.slopes.nodes()
                search.look()
            if moved < _SETTLED and float(np.abs(search.posterior - before).max()) < _SETTLED:
                break
        search.likelihood = whole
        self._hold()

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """What a stopped run needs to go on as if it had not been."""
        search = self.search
        out = {"x": search.x, "posterior": search.posterior, "slope": search.nodes.slope, "log_prior": search.nodes.log_prior}
        if isinstance(search.slopes, Slopes):
            s = search.slopes
            out |= {"shares": s.shares, "spread": np.array([s.spread]), "centre": s.centre, "width": s.width, "level_share": s.level_share}
        elif search.slopes is not None:
            out["level_share"] = search.slopes.level_share
        return {name: np.ascontiguousarray(a, dtype=np.float64) for name, a in out.items()}

    def take_up(self, arrays: Mapping[str, NDArray[np.float64]]) -> None:
        """Stand where `to_arrays` was called.

        Raises
        ------
        InvalidSetting
            If that was with other data or another model.
        """
        search = self.search
        if arrays["x"].shape != search.x.shape or arrays["posterior"].shape != search.posterior.shape:
            raise InvalidSetting("resume", arrays["x"].shape, "The checkpoint is of other judgments or another model; start afresh.")
        search.x, search.posterior = arrays["x"].copy(), arrays["posterior"].copy()
        search.nodes = replace(search.nodes, slope=arrays["slope"].copy(), log_prior=arrays["log_prior"].copy())
        if isinstance(search.slopes, Slopes):
            search.slopes.shares, search.slopes.spread = arrays["shares"].copy(), float(arrays["spread"][0])
            search.slopes.centre, search.slopes.width = arrays["centre"].copy(), arrays["width"].copy()
        if search.slopes is not None:
            search.slopes.level_share = arrays["level_share"].copy()
        self._hold()
