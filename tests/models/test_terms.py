"""The closed forms against the definition of each family, differentiated automatically."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_observation import families

from seamark.models import terms
from seamark.models.observation import Davidson, Luce, Missing, Outcome, lapsed

LAPSES = pytest.mark.parametrize("lapse", [None, -2.0], ids=["no lapse", "lapse"])


def _points(family: Outcome, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Contrasts (a, n, d), some of them far out, and outcomes (n,), each of which occurs."""
    rng = np.random.default_rng(3)
    n = 6 * family.n_outcomes
    s = rng.normal(0, 2, (3, n, m))
    s[0, 0, 0], s[1, 1, 0] = 25.0, -25.0
    return s @ family.contrast(m).T, np.arange(n) % family.n_outcomes


@families
@LAPSES
def test_closed_forms_are_the_derivatives_of_the_definition(family: Outcome, m: int, theta: list[float], lapse: float | None):
    """Both compute the same numbers in double precision; what differs is rounding of terms of size 1, up to 1e-8 in far tails."""
    contrast, outcome = _points(family, m)
    a, n, d = contrast.shape
    T = len(theta) + (lapse is not None)
    given = contrast if d > 1 else contrast[..., 0]
    ours = terms.terms(family, given, outcome, np.array(theta), lapse)
    assert np.allclose(terms.log_prob(family, given, outcome, np.array(theta), lapse), ours.log_prob, rtol=1e-13, atol=1e-13)
    weight = np.random.default_rng(4).random((a, n))
    total = np.zeros((T, T))
    for j in range(n):
        for q in range(a):

            def value(z: torch.Tensor, j: int = j) -> torch.Tensor:
                odds = z[-1] if lapse is not None else None
                plain = family.log_prob(z[None, :d], torch.tensor([int(outcome[j])]), z[d : d + len(theta)])
                return lapsed(plain, family.n_outcomes, odds)[0]

            z = torch.tensor(np.concatenate([contrast[q, j], theta, [] if lapse is None else [lapse]]), requires_grad=True)
            log_p = value(z)
            (gradient,) = torch.autograd.grad(log_p, z)
            hessian = torch.autograd.functional.hessian(value, z.detach()).numpy()
            close = {"rtol": 1e-7, "atol": 1e-9}
            assert np.allclose(ours.log_prob[q, j], log_p.item(), rtol=1e-12, atol=1e-12)
            assert np.allclose(ours.first[q, j], gradient[:d].numpy() if d > 1 else gradient[0].item(), **close)
            assert np.allclose(ours.second[q, j], hessian[:d, :d] if d > 1 else hessian[0, 0], **close)
            assert np.allclose(ours.first_t[:, q, j], gradient[d:].numpy(), **close)
            if d == 1:
                assert np.allclose(ours.cross[:, q, j], hessian[0, 1:], **close)
            elif T:
                assert np.allclose(ours.cross[0, q, j], hessian[:d, d], **close)
            total += weight[q, j] * hessian[d:, d:]
    assert np.allclose(ours.second_t(weight), total, rtol=1e-7, atol=1e-8)


# ------------------------------------------------------------------------------------ circumstances, and what is not concave


def _by_autograd(value: object, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z = torch.tensor(at, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(z), z)  # type: ignore[operator]
    return gradient.numpy(), torch.autograd.functional.hessian(value, z.detach()).numpy()


def test_missing_has_the_gradient_of_the_definition_and_its_expected_curvature():
    rng = np.random.default_rng(5)
    c, theta = rng.normal(0, 2, (1, 12, 2)), np.array([-0.7, 1.3])
    family = Missing()
    both = [terms.terms(family, c, np.full(12, y), theta) for y in (0, 1)]
    assert np.array_equal(both[0].second, both[1].second)  # expected: the same whatever was answered
    for j in range(12):
        expected = np.zeros((4, 4))
        for y in (0, 1):

            def value(z: torch.Tensor, y: int = y) -> torch.Tensor:
                return family.log_prob(z[None, :2], torch.tensor([y]), z[2:])[0]

            gradient, hessian = _by_autograd(value, np.concatenate([c[0, j], theta]))
            assert np.allclose(both[y].first[0, j], gradient[:2], rtol=1e-10)
            assert np.allclose(both[y].first_t[:, 0, j], gradient[2:], rtol=1e-10)
            expected += np.exp(both[y].log_prob[0, j]) * hessian
        assert np.allclose(both[0].second[0, j], expected[:2, :2], atol=1e-12)
        assert np.allclose(both[0].cross[:, 0, j], expected[2:, :2], atol=1e-12)
        alone = np.zeros((1, 12))
        alone[0, j] = 1.0
        assert np.allclose(both[0].second_t(alone), expected[2:, 2:], atol=1e-12)


@pytest.mark.parametrize("family", [Davidson(), Luce(3, most=2, none=True)], ids=["davidson", "luce"])
def test_scales_and_lapses_of_each_cell_are_those_of_the_definition(family: Outcome):
    """c = exp(g x) s + shift, log lapse odds l0 + l y. Gradients are exact. The scale's second derivatives leave out d log p/dc times
    the second derivative of c, which has mean 0 over the answers: they are compared with that term taken off."""
    rng = np.random.default_rng(6)
    n, d = 8, family.contrast(3 if isinstance(family, Luce) else 2).shape[0]
    s, shift = rng.normal(0, 1, (1, n, d)), rng.normal(0, 0.5, (n, d))
    X, Y = rng.normal(0, 1, (n, 2)), rng.normal(0, 1, (n, 1))
    theta, g, lapse = np.array(family.start()), np.array([0.3, -0.2]), np.array([0.4, -2.0])
    outcome = np.arange(n) % family.n_outcomes
    scale = np.exp(X @ g)
    c = s * scale[None, :, None] + shift
    odds = lapse[1] + Y @ lapse[:1]
    flat = (lambda a: a) if d > 1 else (lambda a: a[..., 0])
    plain = terms.terms(family, flat(c), outcome, theta, odds)
    size = len(theta)
    ours = terms.with_lapse_covariates(terms.with_scales(plain, flat(c - shift), X, slice(size, size)), Y)
    for j in range(n):

        def value(z: torch.Tensor, j: int = j) -> torch.Tensor:
            gx = (z[d + size : d + size + 2] * torch.tensor(X[j])).sum()
            contrast = z[:d] * torch.exp(gx) + torch.tensor(shift[j])
            p = family.log_prob(contrast[None], torch.tensor([int(outcome[j])]), z[d : d + size])
            return lapsed(p, family.n_outcomes, z[-1] + (z[-2:-1] * torch.tensor(Y[j])).sum())[0]

        gradient, hessian = _by_autograd(value, np.concatenate([s[0, j], theta, g, lapse]))
        first = np.atleast_1d(ours.first[0, j])
        assert np.allclose(first * scale[j], gradient[:d], rtol=1e-9)
        assert np.allclose(ours.first_t[:, 0, j], gradient[d:], rtol=1e-9, atol=1e-12)
        along = float(first @ (s[0, j] * scale[j]))
        bend = hessian[d:, d:].copy()
        bend[size : size + 2, size : size + 2] -= along * np.outer(X[j], X[j])
        alone = np.zeros((1, n))
        alone[0, j] = 1.0
        assert np.allclose(ours.second_t(alone), bend, atol=1e-10)
        mixed = hessian[d:, :d].copy()
        mixed[size : size + 2] -= np.outer(X[j], first * scale[j])
        assert np.allclose(ours.cross[:, 0, j].reshape(-1, d) * scale[j], mixed, atol=1e-10)
