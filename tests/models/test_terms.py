"""The closed forms against the definition of each family, differentiated automatically."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_observation import families

from seamark.models import terms
from seamark.models.observation import Outcome, lapsed

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
