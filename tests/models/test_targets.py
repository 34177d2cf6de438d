"""Every named loss against its paper's formula written out, derivatives, refusals, and what makes each of them right."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seamark.errors import InvalidRecord, InvalidSetting
from seamark.models.distributional import fit_distribution
from seamark.models.privacy import Cleaned, Privacy, flip_rate, flip_rates, privatise
from seamark.models.targets import (
    Channel,
    Target,
    adaptive_margin,
    beta_rapl,
    bradley_terry,
    cdpo,
    channel_loss,
    eps_rapl,
    flip,
    label_dp,
    label_smoothing,
    margin_rapl,
    project,
    robust,
    soft_label,
)
from seamark.models.utility import Tabular
from seamark.records import Feedback
from seamark.simulation import simulate

Array = NDArray[np.float64]
GRID = np.linspace(-20, 20, 401)


def sigmoid(h: Array) -> Array:
    return 1 / (1 + np.exp(-h))


def bt(h: Array) -> Array:
    return -np.log(sigmoid(h))


def zhou(h: Array, epsilon: float, z: int) -> Array:
    """Zhou, Wu & Orabona 2025: t is the gap before the label z is looked at, so h = t for z = 1 and -t for z = 0."""
    t = h if z else -h
    keep = math.exp(epsilon) / (1 + math.exp(epsilon))
    scale = (math.exp(epsilon) + 1) / (math.exp(epsilon) - 1)
    return -(np.log(sigmoid(-t)) + (z + keep - 1) * scale * t)  # the paper's 1 - sigmoid(t), without its cancellation


NAMED: dict[str, tuple[Target | Channel, Callable[[Array], Array]]] = {
    "bradley_terry": (bradley_terry(), bt),
    "label_smoothing": (label_smoothing(0.1), lambda h: -0.9 * np.log(sigmoid(h)) - 0.1 * np.log(sigmoid(-h))),
    "cdpo": (cdpo(0.3), lambda h: 0.7 * bt(h) + 0.3 * bt(-h)),
    "soft_label": (soft_label(0.8), lambda h: -0.8 * np.log(sigmoid(h)) - 0.2 * np.log(sigmoid(-h))),
    "flip": (flip(), lambda h: -np.log(sigmoid(-h))),
    "adaptive_margin": (adaptive_margin(1.5), lambda h: -np.log(sigmoid(h - 1.5))),
    "robust": (robust(0.2), lambda h: (0.8 * bt(h) - 0.2 * bt(-h)) / 0.6),
    "label_dp, label 1": (label_dp(1.0), lambda h: zhou(h, 1.0, 1)),
    "label_dp, label 0": (label_dp(0.5), lambda h: zhou(h, 0.5, 0)),
    "beta_rapl": (beta_rapl(0.9), lambda h: -np.log(sigmoid(math.log(0.9 / 0.1) * h))),
    "beta_rapl, worse than chance": (beta_rapl(0.3), lambda h: np.full_like(h, math.log(2))),
    "eps_rapl": (eps_rapl(0.9), lambda h: -np.log(0.8 * sigmoid(h) + 0.1)),
    "eps_rapl, worse than chance": (eps_rapl(0.3), lambda h: np.full_like(h, math.log(2))),
    "margin_rapl": (margin_rapl(0.6), lambda h: bt(h - (1 - math.log(0.6 / 0.4)))),
    "margin_rapl, worse than chance": (margin_rapl(0.3), lambda h: bt(h - 1)),
    "margin_rapl, certain": (margin_rapl(1.0), bt),
    "channel": (Channel(0.05), lambda h: -np.log((1 - 2 * 0.05) * sigmoid(h) + 0.05)),
    "channel without flips": (Channel(0.0), bt),
    "all three numbers": (Target(1.7, -0.6, 0.25), lambda h: 0.75 * bt(1.7 * h + 0.6) + 0.25 * bt(-1.7 * h - 0.6)),
}
named = pytest.mark.parametrize("name", list(NAMED))


@named
def test_equals_the_formula_of_its_paper(name: str) -> None:
    loss, formula = NAMED[name]
    np.testing.assert_allclose(loss.loss(GRID), formula(GRID), rtol=0, atol=1e-12)


@named
def test_gradient_is_the_slope_of_the_loss(name: str) -> None:
    """Central differences at step 1e-4: their error is about step^2 |f'''| / 6, below 1e-8 here."""
    loss, _ = NAMED[name]
    slope = (loss.loss(GRID + 1e-4) - loss.loss(GRID - 1e-4)) / 2e-4
    np.testing.assert_allclose(loss.gradient(GRID), slope, rtol=0, atol=1e-8)


@named
def test_a_tensor_has_the_same_values_gradients_and_a_curvature(name: str) -> None:
    loss, _ = NAMED[name]
    h = torch.tensor(GRID, requires_grad=True)
    value = loss.loss(h)
    (gradient,) = torch.autograd.grad(value.sum(), h, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.sum(), h)
    np.testing.assert_allclose(value.detach().numpy(), loss.loss(GRID), rtol=0, atol=1e-13)
    np.testing.assert_allclose(gradient.detach().numpy(), loss.gradient(GRID), rtol=0, atol=1e-13)
    np.testing.assert_allclose(loss.gradient(h.detach()).numpy(), loss.gradient(GRID), rtol=0, atol=1e-13)
    bent = (loss.gradient(GRID + 1e-4) - loss.gradient(GRID - 1e-4)) / 2e-4
    np.testing.assert_allclose(curvature.numpy(), bent, rtol=0, atol=1e-7)


@named
def test_far_gaps_neither_overflow_nor_lose_their_slope(name: str) -> None:
    """Warnings are errors here, so an overflow would fail; float32 keeps its precision."""
    loss, _ = NAMED[name]
    far = np.array([-1e4, -800.0, 800.0, 1e4])
    assert np.isfinite(loss.loss(far)).all()
    assert np.isfinite(loss.gradient(far)).all()
    h = torch.tensor(far, dtype=torch.float32, requires_grad=True)
    value = loss.loss(h)
    assert value.dtype == torch.float32
    (gradient,) = torch.autograd.grad(value.sum(), h, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.sum(), h)
    np.testing.assert_allclose(gradient.detach().numpy(), loss.gradient(far), rtol=1e-6, atol=1e-6)
    assert torch.isfinite(curvature).all()


def test_parameters_may_differ_by_pair() -> None:
    e = np.array([0.0, 0.1, 0.4])
    h = np.array([-1.0, 0.5, 2.0])
    for preset in (label_smoothing, cdpo, robust, Channel):
        each = [preset(float(x)).loss(h)[i] for i, x in enumerate(e)]
        np.testing.assert_allclose(preset(e).loss(h), each, rtol=0, atol=1e-15)
        np.testing.assert_allclose(preset(e).loss(torch.tensor(h)).numpy(), each, rtol=0, atol=1e-14)
    assert beta_rapl(np.array([0.2, 0.7])).loss(h[:, None]).shape == (3, 2)


def test_a_learned_flip_rate_receives_its_gradient() -> None:
    """d/de of -log[(1 - 2 e) s + e] is (2 s - 1) / p."""
    logit = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    e = torch.sigmoid(logit) / 2
    h = torch.tensor([0.7, -1.2], dtype=torch.float64)
    (slope,) = torch.autograd.grad(channel_loss(h, e).sum(), e)
    s, p = torch.sigmoid(h), torch.exp(-channel_loss(h, e))
    assert float(slope.detach()) == pytest.approx(float(((2 * s - 1) / p).sum().detach()), abs=1e-12)


# ---------------------------------------------------------------------------------------------- what makes them right

gaps = st.floats(-30, 30)
rates = st.floats(0, 0.49)


@given(h=gaps, e=rates)
def test_robust_is_the_unbiased_twin(h: float, e: float) -> None:
    """Natarajan et al. 2013, lemma 1: the mean over flips of the corrected loss is the loss of the clean label."""
    one, other = robust(e).loss(np.array([h, -h]))
    assert (1 - e) * one + e * other == pytest.approx(float(bradley_terry().loss(np.array([h]))[0]), abs=1e-10)


@given(h=gaps, e=rates)
def test_smoothing_and_robust_undo_each_other(h: float, e: float) -> None:
    """Smoothing by e the corrected losses of both labels gives the clean loss; correcting the smoothed ones does too."""
    smooth = label_smoothing(e).loss(np.array([h, -h]))
    corrected = ((1 - e) * smooth[0] - e * smooth[1]) / (1 - 2 * e)
    assert corrected == pytest.approx(float(bradley_terry().loss(np.array([h]))[0]), abs=1e-10)


@given(h=gaps, e=st.floats(0, 0.5))
def test_the_channel_is_a_likelihood(h: float, e: float) -> None:
    labels = np.exp(-Channel(e).loss(np.array([h, -h])))
    assert labels.sum() == pytest.approx(1, abs=1e-14)
    assert labels.min() >= e - 1e-15


@given(h=gaps, p=st.floats(0.02, 0.98), k=st.floats(0.1, 3), m=st.floats(-3, 3))
def test_the_optimum_is_at_the_target(h: float, p: float, k: float, m: float) -> None:
    """Where sigmoid(k h - m) is the target the gradient vanishes, and the loss is nowhere less."""
    target = Target(k, m, 1 - p)
    best = np.array([(math.log(p / (1 - p)) + m) / k])
    assert abs(float(target.gradient(best)[0])) < 1e-12
    assert target.loss(np.array([h]))[0] >= target.loss(best)[0] - 1e-12


def test_robust_is_convex_and_has_no_floor() -> None:
    h = np.linspace(-30, 3000, 2000)
    loss = robust(0.2).loss(h)
    assert np.diff(loss, 2).min() > -1e-9
    assert loss[-1] < -900
    assert (loss[-1] - loss[-2]) / (h[-1] - h[-2]) == pytest.approx(-0.2 / 0.6, abs=1e-12)
    # the channel for the same flips stays between its two bounds
    bounded = Channel(0.2).loss(h)
    assert -math.log(0.8) - 1e-12 <= bounded.min()
    assert bounded.max() <= -math.log(0.2) + 1e-12


@pytest.mark.parametrize("share", [0.75, 0.85])
def test_a_table_is_bounded_while_no_share_passes_the_channel(share: float) -> None:
    """At rate e = 1/5 the channel answers a pair alike in 4 of 5 cases at most; beyond, the corrected loss has no least value.

    Within, its optimum is where the channel's likelihood has it: (1 - 2 e) sigmoid(h) + e = share.
    """
    h = np.linspace(0, 200, 200_001)
    mean = share * robust(0.2).loss(h) + (1 - share) * robust(0.2).loss(-h)
    if share < 0.8:
        assert sigmoid(h[mean.argmin()]) == pytest.approx((share - 0.2) / 0.6, abs=1e-3)
    else:
        assert mean.argmin() == len(h) - 1


# ---------------------------------------------------------------------------------------------- privacy


@given(epsilon=st.floats(0, 700))
def test_randomised_response_is_exactly_as_private_as_it_says(epsilon: float) -> None:
    """The worst likelihood ratio between two true labels is keep / flip = exp(epsilon)."""
    e = float(flip_rate(epsilon))
    assert math.log1p(-e) - math.log(e) == pytest.approx(epsilon, abs=1e-9)


def test_flip_rates_worth_knowing() -> None:
    assert flip_rate(0.0) == 0.5
    assert flip_rate(math.log(3)) == pytest.approx(0.25, abs=1e-15)
    assert flip_rate(np.inf) == 0
    # the factor by which corruption after privatisation is magnified: 4.08, 2.16, 1.31 at epsilon 1/2, 1, 2
    epsilon = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(1 / (1 - 2 * flip_rate(epsilon)), 1 / np.tanh(epsilon / 2), rtol=1e-12)
    np.testing.assert_allclose(1 / (1 - 2 * flip_rate(epsilon)), [4.08, 2.16, 1.31], atol=0.005)


@given(epsilon=st.one_of(st.just(math.inf), st.floats(1e-6, 50)), cleaned=st.sampled_from([None, "before", "after", "never"]))
def test_a_statement_is_read_as_it_was_written(epsilon: float, cleaned: Cleaned | None) -> None:
    stated = Privacy(epsilon, cleaned)
    assert Privacy.parse(str(stated)) == stated
    assert 0 <= stated.flips < 0.5


def test_statements_as_people_write_them() -> None:
    assert Privacy.parse(" randomised_response( epsilon = 0.5 ) ;cleaned = after ") == Privacy(0.5, "after")
    assert Privacy.parse("randomised_response(epsilon=2)") == Privacy(2.0)
    assert Privacy.parse("none; cleaned=never") == Privacy(cleaned="never")
    assert str(Privacy(1.0, "before")) == "randomised_response(epsilon=1.0); cleaned=before"
    assert Privacy(1.0).flips == pytest.approx(1 / (1 + math.e), abs=1e-15)
    # 4.08, 2.16, 1.31: how much worse after is than before (Zhou, Wu & Orabona 2025)
    assert [Privacy(x).amplification for x in (0.5, 1.0, 2.0)] == pytest.approx([4.08, 2.16, 1.31], abs=0.005)


@pytest.mark.parametrize(
    "text",
    [
        "", "yes", "randomised_response", "randomised_response()", "randomised_response(epsilon=x)", "randomised_response(epsilon=-1)",
        "randomised_response(epsilon=0)", "randomised_response(epsilon=nan)", "randomised_response(epsilon=inf)", "laplace(epsilon=1)",
        "randomised_response(epsilon=1); cleaned=often", "randomised_response(epsilon=1) cleaned=before", "none(epsilon=1)",
    ],
)  # fmt: skip
def test_a_text_that_states_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"Write randomised_response|positive number of nats"):
        Privacy.parse(text)


@pytest.mark.parametrize("text", ["yes", "randomised response, epsilon 1", "randomised_response(epsilon=x)", "none; cleaned=often"])
def test_a_record_that_states_nothing_readable_is_refused_where_it_stands(text: str) -> None:
    """One error with place, value and remedy as the record is read, rather than later by whoever corrects for flips."""
    with pytest.raises(InvalidRecord, match=r"field 'privacy' is .*Write randomised_response\(epsilon=1\.0\)"):
        _asked(["left", "right"], [None, text])
    assert _asked(["left", "right"], ["none", " randomised_response( epsilon = 1e-1 ) ;cleaned = after "]).n_judgments == 2
    society = simulate(privacy=1.5, tie=None, n_judgments=50, kinds=("pair",), seed=1)
    assert Privacy.parse(society.feedback.judgments["privacy"][0]) == Privacy(1.5)


def _asked(outcome: list[str], privacy: list[str | None] | None = None, **columns: list[object]) -> Feedback:
    n = len(outcome)
    given = {"kind": ["pair"] * n, "ids": [[f"a{i % 7}", f"b{i % 5}"] for i in range(n)], "outcome": outcome}
    return Feedback.from_columns(given | {"privacy": privacy or [None] * n} | columns)


def test_flip_rates_come_from_the_data() -> None:
    private = "randomised_response(epsilon=1.0); cleaned=before"
    feedback = _asked(["left", "right", "left", "skipped", "tie"], [private, "none", None, private, "none"])
    e = float(flip_rate(1.0))
    np.testing.assert_allclose(flip_rates(feedback, unstated=0.0), [e, 0, 0, 0, 0], atol=1e-15)
    np.testing.assert_allclose(flip_rates(feedback, unstated=0.1), [e, 0, 0.1, 0, 0], atol=1e-15)
    with pytest.raises(InvalidSetting, match="1 answers do not state it"):
        flip_rates(feedback)
    with pytest.raises(InvalidSetting, match=r"in \[0, 1/2\)"):
        flip_rates(feedback, unstated=0.5)
    with pytest.raises(InvalidSetting, match="not one of two"):
        flip_rates(_asked(["tie"], [private]))
    after = _asked(["left"], ["randomised_response(epsilon=1.0); cleaned=after"])
    with pytest.raises(InvalidSetting, match=r"by 2\.16"):
        flip_rates(after)
    assert flip_rates(after, cleaned_after=True)[0] == pytest.approx(e, abs=1e-15)


def test_privatised_labels_state_it_and_tell_nothing_else() -> None:
    """Of 20,000 labels the share flipped is e within three standard errors; records round-trip with their statement."""
    n = 20_000
    telling = {"strength": [2] * n, "confidence": [0.9] * n, "seconds": [3.0] * n, "rationale": ["b is rude"] * n}
    clear = _asked(["left"] * n, **telling)  # type: ignore[arg-type]  # lists of one type each
    private = privatise(clear, epsilon=1.0, rng=np.random.default_rng(0), cleaned="before")
    flipped = (private.judgments["outcome"] == "right").to_numpy()
    e = float(flip_rate(1.0))
    assert flipped.mean() == pytest.approx(e, abs=3 * math.sqrt(e * (1 - e) / n))
    assert private.judgments["privacy"].unique().to_list() == ["randomised_response(epsilon=1.0); cleaned=before"]
    for name in telling:
        assert private.judgments[name].null_count() == n
    np.testing.assert_allclose(flip_rates(private), e)
    with pytest.raises(InvalidSetting, match="already"):
        privatise(private, epsilon=1.0, rng=np.random.default_rng(0))
    with pytest.raises(InvalidSetting, match="not one of two"):
        privatise(_asked(["tie"]), epsilon=1.0, rng=np.random.default_rng(0))
    thumbs = Feedback.from_columns(
        {"kind": ["thumbs"] * 4000, "ids": [["a"]] * 4000, "thumb": [True] * 4000, "outcome": ["answered"] * 4000}
    )
    turned = privatise(thumbs, epsilon=1.0, rng=np.random.default_rng(1)).judgments["thumb"]
    assert 1 - turned.mean() == pytest.approx(e, abs=3 * math.sqrt(e * (1 - e) / 4000))  # type: ignore[operator]  # polars types mean() loosely


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_order_of_privacy_and_corruption(order: Cleaned) -> None:
    """20,000 pairs whose left side wins with p = .8; somebody sets a tenth of the answers to right, before or after the mechanism.

    The flips taken out, the share of left is (share - e) / (1 - 2 e). Before, it has lost p / 10, whatever epsilon. After, it has
    lost (p + e / (1 - 2 e)) / 10, which is more the smaller epsilon is: .234 against .080 at epsilon 1/2, .138 at 1.
    """
    n, p = 20_000, 0.8
    for epsilon, expected in ((0.5, 0.234), (1.0, 0.138)) if order == "after" else ((0.5, 0.08), (1.0, 0.08)):
        rng = np.random.default_rng(3)
        outcome = np.where(rng.random(n) < p, "left", "right")
        bad = rng.random(n) < 0.1
        if order == "before":
            outcome = np.where(bad, "right", outcome)
        private = privatise(_asked(outcome.tolist()), epsilon=epsilon, rng=rng, cleaned=order)
        e = flip_rates(private, cleaned_after=True)
        left = (private.judgments["outcome"] == "left").to_numpy()
        if order == "after":
            left &= ~bad
        share = float(np.mean((left - e) / (1 - 2 * e)))
        assert p - share == pytest.approx(expected, abs=4 * Privacy(epsilon).amplification * math.sqrt(0.25 / n))
        with_e = 0.1 * (p + (float(e[0]) / (1 - 2 * float(e[0])) if order == "after" else 0))
        assert expected == pytest.approx(with_e, abs=5e-4)


def test_a_fit_of_private_labels_uses_what_the_data_states() -> None:
    """Half the labels private (epsilon 1), half clear, in one table: with the rates of the data the probit utilities come out as those of
    all labels in the clear, within three standard errors; without them gaps shrink by a tenth or more."""
    rng = np.random.default_rng(0)
    utility = rng.normal(0, 1.5, 12)
    left = rng.integers(0, 12, 30_000)
    right = (left + rng.integers(1, 12, 30_000)) % 12
    won = rng.normal(utility[left] - utility[right], 1.702) > 0
    ids = [[f"item {a}", f"item {b}"] for a, b in zip(left, right, strict=True)]
    clear = Feedback.from_columns({"kind": ["pair"] * 30_000, "ids": ids, "outcome": np.where(won, "left", "right").tolist()})
    private = privatise(clear, epsilon=1.0, rng=rng, cleaned="never").judgments
    half = np.arange(30_000) < 15_000
    rows = {name: np.where(half, private[name].to_numpy(), clear.judgments[name].to_numpy()) for name in ("outcome", "privacy")}
    mixed = Feedback.from_columns({"kind": ["pair"] * 30_000, "ids": ids} | {name: value.tolist() for name, value in rows.items()})
    fits = [fit_distribution(mixed, utility=Tabular(), flips=flip_rates(mixed, unstated=0.0)), fit_distribution(mixed, utility=Tabular())]
    truth = utility[[int(name.split()[1]) for name in mixed.responses["name"].to_list()]]
    truth = truth - truth.mean()
    error = np.abs(fits[0].mean(mixed) - truth) / fits[0].mean_se(mixed)
    assert error.max() < 3.3
    assert fits[1].mean(mixed) @ truth < 0.9 * (truth @ truth)


# ---------------------------------------------------------------------------------------------- norm bound and refusals


def test_projection_is_the_nearest_point_of_the_ball() -> None:
    rng = np.random.default_rng(0)
    theta = rng.normal(size=6) * 3
    np.testing.assert_array_equal(project(theta, 100.0), theta)
    np.testing.assert_array_equal(project(np.zeros(3), 1.0), np.zeros(3))
    near = project(theta, 2.0)
    assert np.linalg.norm(near) == pytest.approx(2, abs=1e-14)
    others = rng.normal(size=(500, 6))
    others *= 2 * rng.random((500, 1)) / np.linalg.norm(others, axis=1, keepdims=True)
    assert np.linalg.norm(theta - near) <= np.linalg.norm(theta - others, axis=1).min()
    np.testing.assert_allclose(project(torch.tensor(theta), 2.0).numpy(), near, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: robust(0.5), "e"),
        (lambda: robust(-0.01), "e"),
        (lambda: robust(np.array([0.1, 0.6])), "e"),
        (lambda: robust(math.nan), "e"),
        (lambda: label_dp(0.0), "e"),
        (lambda: label_dp(-1.0), "epsilon"),
        (lambda: flip_rate(math.nan), "epsilon"),
        (lambda: label_smoothing(0.6), "e"),
        (lambda: cdpo(-0.1), "e"),
        (lambda: soft_label(1.2), "p"),
        (lambda: beta_rapl(1.0), "q"),
        (lambda: eps_rapl(1.1), "q"),
        (lambda: margin_rapl(-0.1), "q"),
        (lambda: Privacy(0.0), "epsilon"),
        (lambda: Privacy(math.nan), "epsilon"),
        (lambda: Privacy(1.0, "often"), "cleaned"),  # type: ignore[arg-type]  # what is tested
        (lambda: Channel(0.51), "e"),
        (lambda: Channel(np.array([0.2, np.nan])), "e"),
        (lambda: channel_loss(GRID, -0.1), "e"),
        (lambda: project(np.ones(2), 0.0), "bound"),
        (lambda: project(np.ones(2), math.inf), "bound"),
    ],
)
def test_refusals(call: Callable[[], object], name: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        call()
    assert refused.value.name == name
