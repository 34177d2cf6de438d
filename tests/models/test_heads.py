"""Heads: their formulas against loops and integrals, planted truths recovered, and what each of them is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from seamark.errors import InvalidSetting, UnreadableSource
from seamark.models.heads import (
    HEADS,
    Head,
    Values,
    average,
    head_of,
    member_weights,
    outlier_index,
)
from seamark.models.observation import Choice

Array = NDArray[np.float64]
PAIR = torch.tensor([[1.0, -1.0]])
SETTINGS: dict[str, dict[str, Any]] = {
    "categorical": {"atoms": 7},
    "bottleneck": {"latent": 6, "beta": 0.01},
    "ensemble": {"members": 3},
}
names = pytest.mark.parametrize("name", HEADS)


def made(name: str, hidden: int, k: int = 1, *, seed: int = 0, **settings: Any) -> Head:
    torch.manual_seed(seed)
    return head_of({"head": name, **(settings or SETTINGS.get(name, {}))}, hidden, k)


def trained(
    head: Head,
    features: Tensor,
    shown: Tensor,
    won: Tensor,
    *,
    lengths: Tensor | None = None,
    weights: Tensor | None = None,
    steps: int = 300,
    rate: float = 0.05,
    batch: int | None = None,
    decay: float = 0.0,
) -> Head:
    """Adam on -log sigmoid of the contrast of each pair (c, 2) in the direction of `won` (c,); weights (members, c)."""
    optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=decay)
    lengths = torch.ones(len(features)) if lengths is None else lengths
    head.train()
    order = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.arange(len(shown)) if batch is None else torch.randint(len(shown), (batch,), generator=order)
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        pairs = shown[rows]
        values = head(features[pairs.ravel()], lengths[pairs.ravel()])
        here = torch.arange(2 * len(pairs)).reshape(-1, 2)
        contrast = head.contrast(values, here, torch.ones(len(pairs), 1), PAIR)[..., 0]
        loss = -logsigmoid(torch.where(won[rows], contrast, -contrast))
        loss = loss.mean() if weights is None else (weights[:, rows] * loss).sum() / len(rows)
        optimiser.zero_grad()
        (loss + values.penalty).backward()
        optimiser.step()
    return head.eval()


def drawn(n: int, c: int, hidden: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, hidden), c pairs of different responses, and uniform numbers to answer by."""
    rng = torch.Generator().manual_seed(seed)
    left = torch.randint(n, (c,), generator=rng)
    right = (left + torch.randint(1, n, (c,), generator=rng)) % n
    return torch.randn(n, hidden, generator=rng), torch.stack([left, right], 1), torch.rand(c, generator=rng)


def corr(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.detach().ravel(), b.detach().ravel()]))[0, 1])


# ---------------------------------------------------------------------------------------------- the seam


@names
def test_a_head_learns_a_planted_quality(name: str):
    """2,000 pairs of 1,000 responses, 8 features: correlation of the reward with the truth, on 500 others."""
    features, shown, u = drawn(1500, 2000, 8, seed=1)
    weight = torch.tensor([1.5, -1.0, 0.8, 0.5, 0.0, 0.0, 0.0, 0.0])
    shown = shown % 1000
    shown[:, 1] = torch.where(shown[:, 0] == shown[:, 1], (shown[:, 1] + 1) % 1000, shown[:, 1])
    truth = features @ weight
    won = u < torch.sigmoid(truth[shown[:, 0]] - truth[shown[:, 1]])
    lengths = torch.exp(5 + 0.5 * features[:, 7])
    head = trained(made(name, 8), features, shown, won, lengths=lengths, steps=200)
    values = head(features[1000:], lengths[1000:])
    # the ends of a ladder of atoms bound its means
    assert corr(values.reward, truth[1000:]) > (0.93 if name == "categorical" else 0.97)
    assert values.mean.shape == (3 if name == "ensemble" else 1, 500, 1)
    assert float(values.penalty) == 0.0
    assert (values.ignorance is not None) == (name == "ensemble")


@names
def test_the_linear_map_is_the_mean(name: str):
    k = 1 if name == "categorical" else 3
    head = made(name, 10, k).eval()
    if name == "bottleneck":
        nn.init.normal_(head.encoder_bias)  # type: ignore[union-attr]
    features = torch.randn(20, 10)
    found = head.linear()
    if name == "categorical":
        assert found is None
        return
    weight, bias = found
    assert (weight.shape, bias.shape) == ((k, 10), (k,))
    torch.testing.assert_close(features @ weight.T + bias, head(features, torch.ones(20)).reward, atol=1e-6, rtol=0)


@names
def test_heads_come_back_from_their_record(name: str):
    head = made(name, 5)
    again = head_of(head.to_dict(), 5)
    assert again.to_dict() == head.to_dict()
    assert type(again) is type(head)
    again.load_state_dict(head.state_dict())
    features = torch.randn(6, 5)
    assert torch.equal(again.eval()(features, torch.ones(6)).mean, head.eval()(features, torch.ones(6)).mean)


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name in HEADS for what in ("pair", "rating", "choice") if name != "categorical" or what == "pair"]
)
def test_gradients_are_those_of_finite_differences(name: str, what: str):
    """By features and all weights, through values, contrast and penalty, in float64."""
    k = 1 if name == "categorical" else 2
    head = made(name, 4, k).double().train()
    rng = torch.Generator().manual_seed(3)
    features = torch.randn(6, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    loadings = torch.randn(5, k, generator=rng, dtype=torch.float64) if k > 1 else torch.ones(5, 1)
    m = {"pair": 2, "rating": 1, "choice": 3}[what]
    K = torch.from_numpy({"pair": Choice(2).contrast(2), "rating": np.ones((1, 1)), "choice": Choice(3).contrast(3)}[what])
    shown = torch.stack([torch.randperm(6, generator=rng)[:m] for _ in range(5)])
    given = dict(head.named_parameters())

    def loss(x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(7)  # the same noise each time
        values: Values = torch.func.functional_call(
            head, dict(zip(given, weights, strict=True)), (x, torch.exp(torch.arange(6, dtype=torch.float64)))
        )
        return head.contrast(values, shown, loadings, K).clone(), values.penalty.clone()

    assert torch.autograd.gradcheck(loss, (features, *given.values()), atol=1e-6)


def test_contrasts_are_sums_over_slots_and_loadings():
    torch.manual_seed(0)
    mean, loadings, K = torch.randn(2, 7, 3), torch.randn(4, 3), torch.randn(2, 3)
    shown = torch.randint(7, (4, 3))
    found = made("ensemble", 5, 3, members=2).contrast(Values(mean, None, None, torch.tensor(0.0)), shown, loadings, K)
    for member in range(2):
        for c in range(4):
            slots = [sum(float(loadings[c, a] * mean[member, shown[c, s], a]) for a in range(3)) for s in range(3)]
            for d in range(2):
                assert float(found[member, c, d]) == pytest.approx(sum(float(K[d, s]) * slots[s] for s in range(3)), abs=1e-5)


@names
def test_values_keep_their_precision_under_autocast(name: str):
    head = made(name, 8).eval()
    features = torch.randn(5, 8).to(torch.bfloat16)
    shown = torch.tensor([[0, 1], [2, 3]])

    def found(x: Tensor) -> tuple[Tensor, Tensor]:
        values = head(x, torch.ones(5))
        return values.mean, head.contrast(values, shown, torch.ones(2, 1), PAIR)

    exact = found(features.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for a, b in zip(found(features), exact, strict=True):
            assert torch.equal(a, b)


@names
def test_a_fit_of_frozen_features_is_where_a_head_starts(name: str):
    k = 1 if name == "categorical" else 2
    weight = np.arange(4.0 * k).reshape(k, 4) - 3
    head = made(name, 4, k).eval()
    head.start_from(weight)
    features = torch.randn(30, 4)
    values, fitted = head(features, torch.ones(30)).mean, features @ torch.from_numpy(weight).float().T
    if name == "categorical":  # in the fit's order
        assert stats.spearmanr(values.detach().ravel(), fitted.ravel()).statistic > 0.999
    else:
        torch.testing.assert_close(values, fitted.expand_as(values))
    with pytest.raises(InvalidSetting, match=rf"takes \({k}, 4\)"):
        head.start_from(weight[:, :3])


@names
def test_only_members_weigh_judgments(name: str):
    found = made(name, 4).weights(np.array([5, 2, 5]), seed=3)
    if name == "ensemble":
        assert np.array_equal(found, member_weights(["5", "2", "5"], 3, 3))
    else:
        assert found is None


def test_settings_that_cannot_be_used_are_named():
    for name, settings, words in (
        ("cubic", {}, "Use one of linear"),
        ("linear", {"atoms": 3}, r"linear\(atoms=\) is 3.*none"),
        ("odin", {"atoms": 3}, "length, orthogonality"),
        ("categorical", {"atoms": 1}, "at least 2"),
        ("categorical", {"entropy": -1.0}, "entropy is -1.0"),
        ("categorical", {"reach": 0.0}, "reach is 0.0"),
        ("bottleneck", {"beta": -0.1}, "beta is -0.1"),
        ("bottleneck", {"latent": 0}, "latent is 0"),
        ("odin", {"length": -1.0}, "length is -1.0"),
        ("ensemble", {"members": 1}, "at least 2"),
    ):
        with pytest.raises(InvalidSetting, match=words):
            head_of({"head": name, **settings}, 4)
    with pytest.raises(InvalidSetting, match="Masses of several values"):
        head_of("categorical", 4, 2)
    with pytest.raises(InvalidSetting, match="head is None"):
        head_of({}, 4)
    with pytest.raises(InvalidSetting, match="number of tokens"):
        made("odin", 4).train()(torch.randn(3, 4))


# ---------------------------------------------------------------------------------------------- spread


def test_the_moderated_contrast_is_near_the_integral_over_both_normals():
    """Against Gauss-Hermite quadrature, gaps to 6 logits and spreads to 3: probabilities within .02, MacKay's approximation."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    head = made("mean_variance", 2)
    worst = 0.0
    for gap in np.linspace(0, 6, 13):
        for a, b in ((0.0, 0.0), (0.5, 1.0), (2.0, 0.0), (3.0, 3.0)):
            values = Values(torch.tensor([[[gap], [0.0]]]), torch.tensor([[[a], [b]]]), None, torch.tensor(0.0))
            contrast = head.contrast(values, torch.tensor([[0, 1]]), torch.ones(1, 1), PAIR.double())
            exact = float((w / w.sum()) @ (1 / (1 + np.exp(-(gap + np.hypot(a, b) * x)))))
            worst = max(worst, abs(float(torch.sigmoid(contrast)) - exact))
            if a == b == 0:
                assert float(contrast) == pytest.approx(gap)
    assert 0.005 < worst < 0.02


def test_a_choice_is_blind_to_a_constant_and_a_pair_where_there_are_two():
    torch.manual_seed(0)
    head = made("mean_variance", 2)
    mean, spread, shown = torch.randn(1, 6, 1), torch.rand(1, 6, 1) * 3, torch.tensor([[0, 1, 2], [3, 4, 5]])
    one = torch.ones(2, 1)

    def of(mean: Tensor, slots: Tensor, K: Tensor) -> Tensor:
        return head.contrast(Values(mean, spread, None, torch.tensor(0.0)), slots, one, K)

    choice = torch.log_softmax(of(mean, shown, torch.eye(3)), -1)
    torch.testing.assert_close(choice, torch.log_softmax(of(mean + 5, shown, torch.eye(3)), -1))
    two = of(mean, shown[:, :2], torch.eye(2))
    torch.testing.assert_close(two[..., :1] - two[..., 1:], of(mean, shown[:, :2], PAIR))
    single = of(mean, shown[:, :1], torch.ones(1, 1))
    torch.testing.assert_close(single[0, :, 0], mean[0, [0, 3], 0] / torch.sqrt(1 + torch.pi / 8 * spread[0, [0, 3], 0] ** 2))


def contested(seed: int, *, planted: bool, c: int = 6000, n: int = 1500) -> tuple[Tensor, Tensor, Tensor]:
    """Every third response divides people: half of them hold it 4 logits above, half 4 below its mean. The first feature says which.
    Who is for and who against is told by no feature: it is a coin per response and judgment."""
    features, shown, u = drawn(n, c, 6, seed=seed)
    features[:, 0] = (torch.arange(n) % 3 == 0).float()
    mean = features[:, 1:] @ torch.tensor([1.2, -0.9, 0.6, 0.0, 0.0])
    rng = torch.Generator().manual_seed(seed + 100)
    side = torch.randint(2, (c, 2), generator=rng) * 2.0 - 1
    held = mean[shown] + (4.0 * side * features[shown, 0] if planted else 0.0)
    return features, shown, u < torch.sigmoid(held[:, 0] - held[:, 1])


def test_spread_is_wide_where_people_split():
    """1,500 responses, 6,000 pairs, planted sd 4 logits for a third of them, 0 for the rest; and none at all as the control."""
    found = {}
    for planted in (True, False):
        features, shown, won = contested(2, planted=planted)
        spread = trained(made("mean_variance", 6), features, shown, won)(features, None).spread[0, :, 0].detach()
        split = features[:, 0] == 1
        found[planted] = float(spread[split].mean()), float(spread[~split].mean())
    wide, narrow = found[True]
    assert 2.5 < wide < 6
    assert narrow < 0.4 * wide
    # without anything planted, the two kinds are as spread as each other
    assert abs(found[False][0] - found[False][1]) < 0.6


def test_categorical_mass_lies_on_both_sides_where_people_split():
    """The same society, 3,000 pairs, two starts: where the mass of a contested response lies in the distribution of a plain one of equal
    mean, F from 0 to 1. A response like the other has |2 F - 1| = 1/2 on average; one with half its mass beyond either end, 1."""
    at_mean = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0, 0]])
    for planted, seed in ((True, 0), (True, 1), (False, 0)):
        features, shown, won = contested(2, planted=planted, c=3000)
        head = trained(made("categorical", 6, seed=seed, atoms=9), features, shown, won, steps=150, rate=0.1)
        split, plain = head(at_mean, None).mass[0, :, 0].exp().detach().double()
        F = torch.cumsum(plain, 0) - plain / 2
        out = float(split @ (2 * F - 1).abs())
        if planted:
            assert out > 0.6, (seed, out)
            assert min(float(split[F < 0.5].sum()), float(split[F > 0.5].sum())) > 0.25
        else:
            assert out == pytest.approx(0.5, abs=0.1)


def test_the_categorical_contrast_is_the_double_sum_and_pairs_alone_are_answered():
    torch.manual_seed(1)
    head = made("categorical", 3, atoms=5).double()
    values = head.eval()(2 * torch.randn(4, 3, dtype=torch.float64), None)
    p = values.mass[0, :, 0].exp().detach().numpy()
    found = head.contrast(values, torch.tensor([[0, 1], [2, 3]]), torch.ones(2, 1), PAIR)[0, :, 0].detach()
    for row, (a, b) in enumerate(((0, 1), (2, 3))):
        wins = sum(p[a, i] * p[b, j] * (1.0 if i > j else 0.5 if i == j else 0.0) for i in range(5) for j in range(5))
        assert float(found[row]) == pytest.approx(np.log(wins / (1 - wins)))
    worst = head.contrast(values, torch.tensor([[0, 1], [2, 3]]), torch.ones(2, 1), -PAIR)[0, :, 0].detach()
    torch.testing.assert_close(worst, -found)
    for K in (torch.ones(1, 1), torch.eye(3), torch.tensor([[2.0, -2.0]])):
        with pytest.raises(InvalidSetting, match="pairs alone"):
            head.contrast(values, torch.zeros(1, len(K.T), dtype=torch.long), torch.ones(1, 1), K)
    # far apart, nothing is lost: the log odds stay finite and exact
    far = torch.full((1, 2, 1, 5), -200.0, dtype=torch.float64)
    far[0, 0, 0, 4] = far[0, 1, 0, 0] = 0.0
    sure = head.contrast(Values(values.mean, None, far, values.penalty), torch.tensor([[0, 1]]), torch.ones(1, 1), PAIR)
    assert 190 < float(sure) < 210


def test_the_reward_for_entropy_is_of_the_mean_mass():
    torch.manual_seed(2)
    head = made("categorical", 3, atoms=4, entropy=0.3).train()
    values = head(torch.randn(5, 3), None)
    mean = values.mass[0, :, 0].exp().mean(0)
    assert values.penalty.item() == pytest.approx(0.3 * (mean * mean.log()).sum().item(), rel=1e-5)
    assert float(made("categorical", 3, atoms=4, entropy=0.0).train()(torch.randn(5, 3), None).penalty) == 0.0


# ---------------------------------------------------------------------------------------------- bottleneck


def test_the_bottleneck_s_penalty_is_the_divergence():
    torch.manual_seed(0)
    head = made("bottleneck", 4, latent=3, beta=0.5).train()
    features = torch.randn(6, 4)
    mean, log_sd = head.latents(features), features @ head.noise.T + head.noise_bias
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_sd.exp()), torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    )
    assert head(features, None).penalty.item() == pytest.approx(2 * 0.5 * divergence.sum(1).mean().item(), rel=1e-5)
    torch.manual_seed(5)
    noisy = torch.stack([head(features, None).mean for _ in range(4000)]).detach()
    torch.testing.assert_close(noisy.mean(0), head.eval()(features, None).mean, atol=5 * float(noisy.std(0).max()) / 4000**0.5, rtol=0)


def test_the_bottleneck_presses_out_what_preferences_have_no_use_for():
    """Two features matter, ten do not: their part in the latents falls with beta."""
    features, shown, u = drawn(1000, 2000, 12, seed=4)
    truth = features[:, :2] @ torch.tensor([1.5, -1.0])
    won = u < torch.sigmoid(truth[shown[:, 0]] - truth[shown[:, 1]])
    part = {}
    for beta in (0.0, 0.03):
        head = trained(made("bottleneck", 12, latent=6, beta=beta), features, shown, won, steps=250)
        size = (head.encoder.detach() ** 2).sum(0).sqrt()
        part[beta] = float(size[2:].mean() / size[:2].mean())
        assert corr(head(features, None).reward, truth) > 0.97
    assert part[0.03] < 0.3 * part[0.0]


def test_shrunk_covariance_is_that_of_ledoit_and_wolf(require: Any):
    covariance = require("sklearn.covariance", "Install the extra dev.")
    from seamark.models.heads import _shape

    rows = np.random.default_rng(0).normal(size=(40, 12)) @ np.diag(np.linspace(0.2, 3, 12))
    centre, whiten = _shape(rows)
    expected = covariance.LedoitWolf().fit(rows)
    np.testing.assert_allclose(centre, expected.location_)
    np.testing.assert_allclose(np.linalg.inv(whiten @ whiten.T), expected.covariance_, rtol=1e-8)


@pytest.mark.parametrize("law", ["normal", "heavy tails"])
def test_fresh_samples_of_the_reference_are_flagged_at_the_nominal_rate(law: str):
    """200 references of 200 rows and 100 fresh samples in 16 dimensions: 20,000 samples, of which 5% should be flagged."""
    rng = np.random.default_rng(1)

    def draw(n: int) -> Array:
        x = rng.normal(size=(n, 16))
        return x if law == "normal" else x / np.sqrt(rng.chisquare(4, (n, 1)) / 4)

    found = [outlier_index(draw(100), draw(200), seed=i) for i in range(200)]
    shares = np.array([f.share for f in found])
    half = 1.96 * shares.std(ddof=1) / np.sqrt(len(shares))
    assert abs(shares.mean() - 0.05) < half + 0.005, (shares.mean(), half)
    covered = np.mean([f.low <= 0.05 <= f.high for f in found])
    assert covered > 0.9
    assert np.mean([f.p_share <= 0.05 for f in found]) < 0.1
    if law == "heavy tails":  # the p-values of a chi-squared law, as published, would not hold
        x, reference = draw(5000), draw(2000)
        away = x - reference.mean(0)
        d2 = (away @ np.linalg.inv(np.cov(reference.T)) * away).sum(1)
        assert np.mean(stats.chi2.sf(d2, 16) <= 0.05) > 0.07


def test_samples_moved_off_the_reference_are_flagged_through_a_trained_bottleneck():
    """400 references, 200 fresh ones, and 200 whose quality an optimiser raised by three standard deviations."""
    features, shown, u = drawn(1600, 4000, 8, seed=5)
    weight = torch.tensor([1.5, -1.0, 0.5, 0, 0, 0, 0, 0])
    truth = features @ weight
    won = u < torch.sigmoid(truth[shown[:, 0]] - truth[shown[:, 1]])
    head = trained(made("bottleneck", 8, latent=4, beta=0.01), features[:1000], shown[(shown < 1000).all(1)], won[(shown < 1000).all(1)])

    def latents(x: Tensor) -> Array:
        return head.latents(x).detach().numpy().astype(np.float64)

    reference, fresh = latents(features[1000:1400]), latents(features[1400:])
    same = outlier_index(fresh, reference)
    assert same.low <= 0.05 <= same.high
    assert same.p_share > 0.01
    away = outlier_index(latents(features[1400:] + 3 * weight / weight.norm()), reference)
    assert away.share > 0.5
    assert away.p_share < 1e-6
    assert away.low > same.high
    assert (away.n, away.n_reference) == (200, 400)
    assert np.median(away.distance) > np.median(same.distance)


def test_what_the_index_cannot_be_told():
    rows = np.zeros((20, 2))
    for arguments, words in (
        ((rows, np.zeros((20, 3))), "as many columns"),
        ((rows[:0], rows), "rows of latents"),
        ((rows, rows[:5]), "5 folds take 10 rows"),
    ):
        with pytest.raises(InvalidSetting, match=words):
            outlier_index(*arguments)
    with pytest.raises(InvalidSetting, match="false alarms"):
        outlier_index(rows, rows, level=0.0)
    with pytest.raises(InvalidSetting, match="folds is 1"):
        outlier_index(rows, rows, folds=1)
    assert outlier_index(rows, rows).p.tolist() == [1.0] * 20  # no spread at all: nothing lies further out


# ---------------------------------------------------------------------------------------------- length


def wordy(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """1,000 responses whose length is a feature among eight and is liked for itself, 4,000 pairs, and the quality apart from it."""
    features, shown, u = drawn(1000, 4000, 8, seed=seed)
    rng = torch.Generator().manual_seed(seed + 50)
    lengths = torch.exp(5 + 0.6 * features[:, 7] + 0.2 * torch.randn(1000, generator=rng))
    quality = features[:, :3] @ torch.tensor([1.2, -0.8, 0.5])
    liked = quality + 1.2 * features[:, 7]
    return features, lengths, shown, u < torch.sigmoid(liked[shown[:, 0]] - liked[shown[:, 1]]), quality


@pytest.mark.parametrize("batch", [None, pytest.param(64, marks=pytest.mark.slow)])
def test_odin_keeps_quality_and_leaves_length(batch: int | None):
    features, lengths, shown, won, quality = wordy(6)
    steps, rate = (300, 0.05) if batch is None else (600, 0.02)
    plain = trained(made("linear", 8), features, shown, won, lengths=lengths, batch=batch, steps=steps, rate=rate)
    head = trained(made("odin", 8), features, shown, won, lengths=lengths, batch=batch, steps=steps, rate=rate)
    log_length = torch.log(lengths)
    by_plain, by_odin = plain(features, lengths).reward, head(features, lengths).reward
    assert corr(by_plain, log_length) > 0.45
    assert abs(corr(by_odin, log_length)) < 0.08
    assert corr(by_odin, quality) > 0.97 > corr(by_plain, quality) + 0.08


def test_small_batches_leave_length_too():
    """Batches of 4 responses."""
    features, lengths, shown, won, quality = wordy(7)
    head = trained(made("odin", 8), features, shown, won, lengths=lengths, batch=2, steps=800, rate=0.02)
    reward = head(features, lengths).reward
    assert corr(reward, quality) > 0.9
    assert abs(corr(reward, torch.log(lengths))) < 0.15


def test_the_penalty_is_of_correlations_and_angle():
    torch.manual_seed(3)
    features, lengths = torch.randn(60, 5), torch.exp(torch.randn(60))
    head = made("odin", 5, length=0.7, orthogonality=0.2).train()
    q, r, t = features @ head.weight.T, features @ head.length_weight.T, torch.log1p(lengths)
    angle = abs(float(nn.functional.cosine_similarity(head.weight, head.length_weight).detach()))
    values = head(features, lengths)
    assert values.penalty.item() == pytest.approx(0.7 * (abs(corr(q, t)) - corr(r, t)) + 0.2 * angle, abs=1e-3)
    torch.testing.assert_close(values.mean[0], q + r)
    torch.testing.assert_close(head.eval()(features).mean[0], q)
    for n in (1, 2):
        assert head.train()(features[:n], lengths[:n]).penalty.item() == pytest.approx(0.2 * angle, rel=1e-5)
    # responses of one length: nothing to correlate with, and a finite gradient
    head(features, torch.full((60,), 9.0)).penalty.backward()
    assert torch.isfinite(head.weight.grad).all()


# ---------------------------------------------------------------------------------------------- ensembles


def test_weights_of_members_are_poisson_and_fixed_by_prompt_and_seed():
    """20,000 prompts: each member's counts against Poisson(1), members uncorrelated."""
    keys = [f"prompt {i}" for i in range(20_000)]
    weights = member_weights(keys, 3)
    expected = stats.poisson.pmf(np.arange(6), 1) * len(keys)
    for row in weights:
        counts = np.append(np.bincount(row.astype(int), minlength=6)[:5], (row >= 5).sum())
        expected[5] = len(keys) - expected[:5].sum()
        assert stats.chisquare(counts, expected).pvalue > 1e-3
    assert np.abs(np.corrcoef(weights) - np.eye(3)).max() < 4 / np.sqrt(len(keys))
    turned = member_weights(keys[::-1], 3)[:, ::-1]
    assert np.array_equal(turned, weights)
    assert np.array_equal(member_weights([*keys[:50], *keys[:50]], 3), np.tile(weights[:, :50], 2))
    assert not np.array_equal(member_weights(keys, 3, seed=1), weights)


def _ensemble(n_prompts: int, seed: int, *, members: int = 8, hidden: int = 6) -> tuple[Head, Tensor]:
    """A fit to two pairs for each of n_prompts prompts, and the truth's weights."""
    features = torch.randn(4 * n_prompts, hidden, generator=torch.Generator().manual_seed(seed))
    rng = torch.Generator().manual_seed(seed + 500)
    weight = torch.tensor([1.0, -0.7, 0.5] + [0.0] * (hidden - 3))
    shown = torch.arange(4 * n_prompts).reshape(-1, 2)
    truth = features @ weight
    won = torch.rand(2 * n_prompts, generator=rng) < torch.sigmoid(truth[shown[:, 0]] - truth[shown[:, 1]])
    keys = [str(i // 2) for i in range(2 * n_prompts)]
    weights = torch.from_numpy(member_weights(keys, members, seed)).float()
    torch.manual_seed(seed)
    return trained(
        head_of({"head": "ensemble", "members": members}, hidden), features, shown, won, weights=weights, steps=120, rate=0.1
    ), weight


def test_members_disagree_away_from_the_data_and_less_with_more_of_it():
    """Sd over 8 members at the responses of training and at three times their distance; with 200 prompts and with 3,200."""
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    few, many = _ensemble(200, 1)[0], _ensemble(3200, 1)[0]
    near, far, more = (h(s * x, None).ignorance.mean().item() for h, s in ((few, 1), (few, 3), (many, 1)))
    assert far == pytest.approx(3 * near, rel=1e-3)
    assert 0.15 < more / near < 0.4  # a quarter, by the square root of 16


def test_the_spread_of_members_is_that_of_other_samples():
    """12 samples of 200 prompts: the root mean square error of the reward over samples against that which the members say."""
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    errors, said = [], []
    for seed in range(12):
        head, weight = _ensemble(200, seed)
        values = head(x, None)
        errors.append(((values.reward[:, 0] - x @ weight) ** 2).mean().item())
        said.append((values.ignorance**2).mean().item())
    ratio = np.sqrt(np.mean(said) / np.mean(errors))
    assert 0.8 < ratio < 1.25, ratio


# ---------------------------------------------------------------------------------------------- averages of weights


def test_an_average_is_the_mean_and_refuses_what_is_unlike(tmp_path: Path):
    torch.manual_seed(0)
    states = [{"a": torch.randn(3, 2), "b": torch.randn(2).to(torch.bfloat16), "n": torch.tensor([1, 2])} for _ in range(3)]
    found = average(states)
    torch.testing.assert_close(found["a"], torch.stack([s["a"] for s in states]).mean(0))
    assert torch.equal(found["b"], torch.stack([s["b"].float() for s in states]).mean(0).to(torch.bfloat16))
    assert torch.equal(found["n"], states[0]["n"])
    low, high = (torch.stack([s["a"] for s in states]).amin(0), torch.stack([s["a"] for s in states]).amax(0))
    assert bool(((low <= found["a"]) & (found["a"] <= high)).all())
    for i, state in enumerate(states[:2]):
        (tmp_path / str(i)).mkdir()
        save_file({"a": state["a"]}, tmp_path / str(i) / "model-00001-of-00002.safetensors")
        save_file({"b": state["b"], "n": state["n"]}, tmp_path / str(i) / "model-00002-of-00002.safetensors")
    torch.testing.assert_close(average([tmp_path / "0", tmp_path / "1"])["a"], (states[0]["a"] + states[1]["a"]) / 2)
    for other, words in (
        ({"a": states[0]["a"], "b": states[0]["b"]}, "do not both have n"),
        ({**states[0], "a": torch.randn(3, 3)}, r"a is \(3, 3\)"),
        ({**states[0], "b": torch.randn(2)}, r"b is \(2,\) torch.float32"),
        ({**states[0], "n": torch.tensor([1, 3])}, "whole numbers"),
    ):
        with pytest.raises(InvalidSetting, match=words):
            average([states[0], other])
    with pytest.raises(InvalidSetting, match="at least two"):
        average(states[:1])
    with pytest.raises(UnreadableSource, match="no weights in safetensors"):
        average([tmp_path / "0", tmp_path])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UnreadableSource, match="cannot be read as safetensors"):
        average([tmp_path / "broken", tmp_path / "0"])


def _network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 48), nn.Tanh(), nn.Linear(48, 1, bias=False))


def _fine_tuned(start: dict[str, Tensor], features: Tensor, shown: Tensor, won: Tensor, *, seed: int, steps: int) -> nn.Sequential:
    network = _network(0)
    network.load_state_dict(start)
    optimiser = torch.optim.Adam(network.parameters(), 0.005)
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(shown), (32,), generator=order)
        gap = network(features[shown[rows, 0]])[:, 0] - network(features[shown[rows, 1]])[:, 0]
        loss = softplus(torch.where(won[rows], -gap, gap)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def _warm(seed: int) -> Array:
    """Accuracy of (one member, mean of the predictions, mean of the weights) against the truth on new pairs, then their share of the
    flipped training labels that they reproduce."""
    features, shown, u = drawn(900, 600, 20, seed=seed)
    new = torch.randn(2000, 20, generator=torch.Generator().manual_seed(seed + 1000))
    teacher = _network(seed + 77)
    with torch.no_grad():
        truth, truth_new = 6 * teacher(features)[:, 0], 6 * teacher(new)[:, 0]
    better = truth[shown[:, 0]] > truth[shown[:, 1]]
    flipped = u < 0.25
    start = _fine_tuned(_network(0).state_dict(), features, shown[:200], better[:200], seed=seed, steps=60).state_dict()
    members = [_fine_tuned(start, features, shown[200:], (better ^ flipped)[200:], seed=seed + 10 + i, steps=400) for i in range(5)]
    merged = _network(0)
    merged.load_state_dict(average([m.state_dict() for m in members]))
    with torch.no_grad():
        on_new = [m(new)[:, 0] for m in members]
        on_old = [m(features)[:, 0] for m in members]
        for scores, inputs in ((on_new, new), (on_old, features)):
            scores += [torch.stack(scores[:5]).mean(0), merged(inputs)[:, 0]]

    def right(score: Tensor) -> float:
        return float(((score[:1000] > score[1000:]) == (truth_new[:1000] > truth_new[1000:])).float().mean())

    wrong = torch.arange(600)[flipped & (torch.arange(600) >= 200)]

    def memorised(score: Tensor) -> float:
        return float(((score[shown[wrong, 0]] > score[shown[wrong, 1]]) != better[wrong]).float().mean())

    return np.array(
        [[np.mean([f(s) for s in scores[:5]]), f(scores[5]), f(scores[6])] for f, scores in ((right, on_new), (memorised, on_old))]
    )


@pytest.mark.slow
def test_averages_of_weights_under_flipped_labels():
    """20 societies: what an average gains over its members, and over the mean of their predictions; and what it memorises of the flips."""
    runs = np.stack([_warm(seed) for seed in range(20)])
    mean, half = runs.mean(0), stats.t.ppf(0.975, 19) * runs.std(0, ddof=1) / np.sqrt(20)
    print("\none member, mean of predictions, mean of weights (20 societies, 25% of 400 labels flipped)")
    for name, m, h in zip(("accuracy on new pairs", "flips memorised"), mean, half, strict=True):
        print(f"  {name}: " + ", ".join(f"{a:.3f} +- {b:.3f}" for a, b in zip(m, h, strict=True)))
    for name, contrast in (("weights - member", [-1, 0, 1]), ("weights - predictions", [0, -1, 1])):
        d = runs @ contrast
        h = stats.t.ppf(0.975, 19) * d.std(0, ddof=1) / np.sqrt(20)
        print(f"  {name}: accuracy {d.mean(0)[0]:+.4f} +- {h[0]:.4f}, memorised {d.mean(0)[1]:+.4f} +- {h[1]:.4f}")
    gain = runs[:, 0] @ [-1, 0, 1]
    assert gain.mean() - stats.t.ppf(0.975, 19) * gain.std(ddof=1) / np.sqrt(20) > 0
