"""Heads: what turns a language model's features of responses into values, each for a purpose of its own.

Conventions
-----------
features (n, H) are those of n responses, lengths (n,) their tokens. k values per response, in logits, of which a judgment takes the
loadings z (k,), as everywhere. A head is a module with

    forward(features, lengths) -> Values
    contrast(values, shown (c, m), loadings (c, k), K (d, m)) -> (members, c, d)     what the outcome family of c judgments takes
    weights(keys (c,), seed=) -> (members, c) or None   how much each judgment counts for each member; None: 1
    linear() -> (weight (k, H), bias (k,)) or None      the mean when not training, where it is a linear map of the features
    start_from(weight (k, H))                           sets that map to one fitted on frozen features
    to_dict() -> its settings, which `head_of` turns back into a head with fresh weights

K is the family's `Outcome.contrast`: [[1, -1]] for a pair, [[1]] for a rating, the unit matrix for a choice. Parameters are float32
and stay so under autocast: at a value of 4 bfloat16 has steps of .03 logits.

    head             beside the value       for
    linear           -                      the usual reward; one that a fit of frozen features may start
    mean_variance    spread                 responses that people split over
    categorical      mass                   responses that are liked or disliked, with little between
    bottleneck       latents                responses unlike those it was trained on (`outlier_index`)
    odin             length                 a value that does not go with length
    ensemble         members                how little is known away from the data

`average` makes one model of several that started alike.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from scipy.stats import norm
from torch import Tensor, nn

from seamark.errors import InvalidSetting, UnreadableSource

Array = NDArray[np.float64]
Keys = Sequence[str] | NDArray[np.int64]
"""(n,) what is drawn as one, of each judgment: its prompt, by name or code."""
Member = TypeVar("Member", bound="str | Path | Mapping[str, Tensor]")

_START = 0.1
"""Sd of a value at the start, in logits, for features of mean square 1: answers are near chance. Stiennon et al. 2020 have 1."""
_SPREAD_START = 1.0
"""Logits. The slope of the contrast in a spread vanishes at 0, from where it would not leave."""
_NOISE_START = 0.5
"""Sd of the noise on latents at the start, where the prior's is 1."""
_FLOOR = 1e-6
"""Added to a product of two variances: values that are all alike correlate with nothing, and with a bounded gradient."""


@dataclass(frozen=True)
class Values:
    """What a head says of n responses."""

    mean: Tensor
    """(members, n, k) values, logits; members = 1 but for ensembles."""
    spread: Tensor | None
    """(members, n, k) sd of a value over what nobody recorded, logits; mean_variance alone has it."""
    mass: Tensor | None
    """(members, n, k, atoms) log mass on the atoms; categorical alone has it."""
    penalty: Tensor
    """Scalar to add to the mean loss per judgment, nats; 0 when not training."""

    @property
    def reward(self) -> Tensor:
        """(n, k) mean over members."""
        return self.mean.mean(0)

    @property
    def ignorance(self) -> Tensor | None:
        """(n, k) sd over members (M - 1 in the denominator); None where there is one member."""
        return self.mean.std(0) if len(self.mean) > 1 else None


# ---------------------------------------------------------------------------------------------- what heads share


def slot_utilities(mean: Tensor, shown: Tensor, loadings: Tensor) -> Tensor:
    """U[., c, slot] = sum_a z[c, a] mean[., shown[c, slot], a]: (members, n, k), (c, m), (c, k) -> (members, c, m)."""
    # products written out: under autocast a matrix product would be in half precision
    return (mean[:, shown] * loadings.to(mean.dtype)[:, None]).sum(-1)


def linear_contrast(mean: Tensor, shown: Tensor, loadings: Tensor, K: Tensor) -> Tensor:
    """U K' (members, c, d): the contrast of a head whose values are numbers."""
    return _times(slot_utilities(mean, shown, loadings), K)


def _times(U: Tensor, K: Tensor) -> Tensor:
    return (U[..., None, :] * K.to(U.dtype)).sum(-1)


def _start(*shape: int, scale: float = _START) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * (scale / math.sqrt(shape[-1])))


def _project(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """features @ weight.T + bias in the precision of the weights, whatever autocast says."""
    with torch.autocast(features.device.type, enabled=False):
        return nn.functional.linear(features.to(weight.dtype), weight, bias)


def _given(weight: ArrayLike | Tensor, shape: tuple[int, ...]) -> Tensor:
    found = weight.detach() if isinstance(weight, Tensor) else torch.as_tensor(np.asarray(weight))
    if found.shape != shape:
        raise InvalidSetting("weight", tuple(found.shape), f"The head takes {tuple(shape)} (values, features).")
    return found


def _set(parameter: nn.Parameter, weight: ArrayLike | Tensor) -> None:
    """Set weights in place; all members of an ensemble alike."""
    with torch.no_grad():
        parameter.copy_(_given(weight, parameter.shape[-2:]).expand_as(parameter))


def _nothing(mean: Tensor) -> Tensor:
    return mean.new_zeros(())


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise InvalidSetting(name, value, remedy)


# ---------------------------------------------------------------------------------------------- heads


class LinearHead(nn.Module):
    """value = w . x, without a bias: gaps do not see one, and the cut points of ratings and thumbs make up for it."""

    def __init__(self, hidden_size: int, k: int = 1) -> None:
        super().__init__()
        self.weight = _start(k, hidden_size)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Values:  # noqa: ARG002  # the seam's signature
        mean = _project(features, self.weight)[None]
        return Values(mean, None, None, _nothing(mean))

    def contrast(self, values: Values, shown: Tensor, loadings: Tensor, K: Tensor) -> Tensor:
        return linear_contrast(values.mean, shown, loadings, K)

    def weights(self, keys: Keys, *, seed: int = 0) -> Array | None:  # noqa: ARG002  # the seam's signature
        return None

    def linear(self) -> tuple[Tensor, Tensor] | None:
        return self.weight.detach(), self.weight.new_zeros(len(self.weight))

    def start_from(self, weight: ArrayLike | Tensor) -> None:
        _set(self.weight, weight)

    def to_dict(self) -> dict[str, Any]:
        return {"head": "linear"}


class MeanVarianceHead(nn.Module):
    """value ~ N(w . x, s^2), s = softplus(v . x + b): how widely people (or moods, or aims) differ over a response.

        pair      (mu_a - mu_b) / sqrt(1 + pi/8 (s_a^2 + s_b^2))
        single    mu / sqrt(1 + pi/8 s^2)
        choice    U / sqrt(1 + pi/8 2 s2), s2 the mean of s^2 over the slots

    with s^2 = sum_a z_a^2 s_a^2 of a slot. The contrast is the logit of E sigmoid(U_a - U_b) over both normals, to MacKay's approximation:
    the rater's logistic noise stays, and spread comes on top of it. One factor for all slots of a choice keeps it blind to a constant
    added to all, and makes a choice of two a pair.

    A spread makes answers less sure, whatever it comes from: disagreement, carelessness and questions that are hard look the same
    (seamark.models.distributional says more). For singles the factor pulls towards the zero of the values, not towards the cut
    point, so it is exact for a cut at 0 only.

    Source: MacKay 1992 (evidence framework for classification), equation 10. Siththaranjan et al. 2024 (mean-and-variance DPL) have
    Phi((mu_a - mu_b) / sqrt(s_a^2 + s_b^2)), which has no noise of the response: two certain values would never be confused, and the
    unit of all values and spreads together is not determined. Here the noise sets the unit, and no spread is Bradley-Terry.
    """

    def __init__(self, hidden_size: int, k: int = 1) -> None:
        super().__init__()
        self.weight = _start(k, hidden_size)
        self.spread_weight = _start(k, hidden_size)
        self.spread_bias = nn.Parameter(torch.full((k,), math.log(math.expm1(_SPREAD_START))))

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Values:  # noqa: ARG002  # the seam's signature
        mean = _project(features, self.weight)[None]
        spread = nn.functional.softplus(_project(features, self.spread_weight, self.spread_bias))[None]
        return Values(mean, spread, None, _nothing(mean))

    def contrast(self, values: Values, shown: Tensor, loadings: Tensor, K: Tensor) -> Tensor:
        assert values.spread is not None
        variance = slot_utilities(values.spread**2, shown, loadings**2)
        both = _times(variance, K**2) if len(K) == 1 else 2 * variance.mean(-1, keepdim=True)
        return linear_contrast(values.mean, shown, loadings, K) / torch.sqrt(1 + math.pi / 8 * both)

    def weights(self, keys: Keys, *, seed: int = 0) -> Array | None:  # noqa: ARG002  # the seam's signature
        return None

    def linear(self) -> tuple[Tensor, Tensor] | None:
        return self.weight.detach(), self.weight.new_zeros(len(self.weight))

    def start_from(self, weight: ArrayLike | Tensor) -> None:
        _set(self.weight, weight)

    def to_dict(self) -> dict[str, Any]:
        return {"head": "mean_variance"}


class CategoricalHead(nn.Module):
    """value is one of `atoms` numbers evenly spaced from -reach to reach: mass softmax(W x + b).

        P(a over b) = sum_ij p_i(a) p_j(b) [1{i > j} + 1/2 1{i = j}],   contrast of a pair: its log odds

    Only the order of the atoms enters, so `reach` is a convention: means are not logits, and the head is for pairs. The penalty is
    minus `entropy` times the entropy of the mean mass over the batch, which keeps atoms in use. The loss is not convex: runs end with
    their mass on different atoms, and read alike only relative to other responses.

    Source: Siththaranjan et al. 2024 (categorical DPL): 10 atoms and entropy .1 for language models; theirs lie from 0 to 1.
    """

    def __init__(self, hidden_size: int, k: int = 1, *, atoms: int = 10, reach: float = 3.0, entropy: float = 0.1) -> None:
        super().__init__()
        _require(k == 1, "k", k, "Masses of several values do not add up to one of their sum: use Same() people, or another head.")
        _require(atoms >= 2, "atoms", atoms, "Use at least 2.")
        _require(0 < reach < math.inf, "reach", reach, "Use a positive number.")
        _require(0 <= entropy < math.inf, "entropy", entropy, "Use 0 or more; the paper has 0.1.")
        self.atoms, self.reach, self.entropy = atoms, reach, entropy
        self.weight = _start(atoms, hidden_size)
        self.bias = nn.Parameter(torch.zeros(atoms))
        self.register_buffer("ladder", torch.linspace(-reach, reach, atoms), persistent=False)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Values:  # noqa: ARG002  # the seam's signature
        mass = torch.log_softmax(_project(features, self.weight, self.bias), -1)[None, :, None]
        mean = (mass.exp() * cast(Tensor, self.ladder).to(mass.dtype)).sum(-1)
        if not self.training or self.entropy == 0:
            return Values(mean, None, mass, _nothing(mean))
        used = torch.logsumexp(mass[0, :, 0], 0) - math.log(mass.shape[1])
        return Values(mean, None, mass, self.entropy * (used.exp() * used).sum())

    def contrast(self, values: Values, shown: Tensor, loadings: Tensor, K: Tensor) -> Tensor:  # noqa: ARG002  # one value: its loading is 1
        assert values.mass is not None
        _require(
            K.shape == (1, 2) and bool((K[0, 0] == -K[0, 1]) & (K[0, 0].abs() == 1)),
            "head",
            "categorical",
            "Its values have an order and no unit, so it answers pairs alone: leave other judgments out, or use another head.",
        )
        # in float64, where only masses below 1e-300 are lost, and each side a sum of positive terms: neither is lost in 1 - the other
        p, q = (values.mass[:, shown[:, slot], 0].double().exp() for slot in (0, 1))
        wins, loses = ((mine * (torch.cumsum(other, -1) - other / 2)).sum(-1) for mine, other in ((p, q), (q, p)))
        odds = torch.log(wins.clamp_min(1e-300)) - torch.log(loses.clamp_min(1e-300))
        return odds[..., None].to(values.mass.dtype) * K[0, 0].to(values.mass.dtype)

    def weights(self, keys: Keys, *, seed: int = 0) -> Array | None:  # noqa: ARG002  # the seam's signature
        return None

    def linear(self) -> tuple[Tensor, Tensor] | None:
        return None

    def start_from(self, weight: ArrayLike | Tensor) -> None:
        """Mass tilts towards the upper atoms as the fitted value grows: responses are in its order, in another unit."""
        rising = cast(Tensor, self.ladder)[:, None] / self.reach
        _set(self.weight, rising * _given(weight, (1, self.weight.shape[1])).to(rising))

    def to_dict(self) -> dict[str, Any]:
        return {"head": "categorical", "atoms": self.atoms, "reach": self.reach, "entropy": self.entropy}


class BottleneckHead(nn.Module):
    """value = w . z, z ~ N(A x + a, diag s(x)^2) when training and z = A x + a else; s = exp(B x + b).

    The penalty is 2 beta times the mean over the batch of KL(z || N(0, 1)), nats: what preferences have no use for is pressed out of
    z, so that responses which the training did not know stand out among `latents` (`outlier_index`).

    Source: Miao et al. 2024 (InfoRM): beta times the KL of both responses per pair, 128 latents and beta .1. Ours counts a response
    of many judgments once, and is linear from latents to value, so that it is exported as any linear head. Their accuracy hardly moves
    in distribution, and others report it to fail elsewhere: it is for the alarm.
    """

    def __init__(self, hidden_size: int, k: int = 1, *, latent: int = 128, beta: float = 0.1) -> None:
        super().__init__()
        _require(latent >= 1, "latent", latent, "Use at least 1.")
        _require(0 <= beta < math.inf, "beta", beta, "Use 0 or more; the paper has 0.1.")
        self.latent, self.beta = latent, beta
        self.encoder = _start(latent, hidden_size, scale=1.0)
        self.encoder_bias = nn.Parameter(torch.zeros(latent))
        self.noise = _start(latent, hidden_size)
        self.noise_bias = nn.Parameter(torch.full((latent,), math.log(_NOISE_START)))
        self.decoder = _start(k, latent)

    def latents(self, features: Tensor) -> Tensor:
        """(n, latent) where each response lies, without noise."""
        return _project(features, self.encoder, self.encoder_bias)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Values:  # noqa: ARG002  # the seam's signature
        z = self.latents(features)
        if not self.training:
            mean = _project(z, self.decoder)[None]
            return Values(mean, None, None, _nothing(mean))
        log_sd = _project(features, self.noise, self.noise_bias)
        kl = 0.5 * (z**2 + torch.exp(2 * log_sd) - 1) - log_sd
        mean = _project(z + torch.exp(log_sd) * torch.randn_like(z), self.decoder)[None]
        return Values(mean, None, None, 2 * self.beta * kl.sum(-1).mean())

    def contrast(self, values: Values, shown: Tensor, loadings: Tensor, K: Tensor) -> Tensor:
        return linear_contrast(values.mean, shown, loadings, K)

    def weights(self, keys: Keys, *, seed: int = 0) -> Array | None:  # noqa: ARG002  # the seam's signature
        return None

    def linear(self) -> tuple[Tensor, Tensor] | None:
        return _project(self.decoder, self.encoder.T).detach(), _project(self.encoder_bias[None], self.decoder)[0].detach()

    def start_from(self, weight: ArrayLike | Tensor) -> None:
        """The first k latents are the fitted values."""
        k, latent = self.decoder.shape
        _require(latent >= k, "latent", latent, f"It takes at least {k}, one for each value it is to start from.")
        fitted = _given(weight, (k, self.encoder.shape[1]))
        _set(self.encoder, torch.cat([fitted.to(self.encoder), self.encoder.detach()[k:]]))
        _set(self.decoder, torch.eye(k, latent))

    def to_dict(self) -> dict[str, Any]:
        return {"head": "bottleneck", "latent": self.latent, "beta": self.beta}


class OdinHead(nn.Module):
    """value = quality q . x; when training, quality + length l . x, of which the second is to carry what goes with length.

        penalty = length (|corr(quality, log tokens)| - corr(length, log tokens)) + orthogonality |cos(q, l)|

    means over the k values. Correlations are over the responses of a batch (of a process), across prompts, so they also see which
    prompts have long answers. A batch takes 3 responses, or nothing is asked of the correlations: those of two points are 1 or -1.
    A small batch makes the penalty larger by chance and its gradient noisy, not wrong on average: batches of 4 responses kept as much
    of a planted quality as a running correlation over 1,024 did, in six runs of each.

    Length here is everything that goes with length in the training data, so where better responses are longer for a reason, the
    quality head loses that reason too.

    No one weight suits all. On features that do not change, length=1 parts the two heads and length=.1 does not: the length head keeps
    a share of the quality. Where features learn too, the penalty shapes them: in small networks from random weights (40 and 150 prompts, a
    run each) length=1 left a quality uncorrelated with the truth, length=.1 one of correlation .92 (150 prompts), and .01 with length.
    So look at held-out accuracy beside that of a linear head.

    Source: Chen et al. 2024 (ODIN); their weights are 1, their lengths raw, and their code also has |corr(quality + length,
    tokens)|, which asks that what is fitted to the labels ignore length and so works against the second head.
    """

    def __init__(self, hidden_size: int, k: int = 1, *, length: float = 1.0, orthogonality: float = 1.0) -> None:
        super().__init__()
        for name, value in (("length", length), ("orthogonality", orthogonality)):
            _require(0 <= value < math.inf, name, value, "Use 0 or more.")
        self.length, self.orthogonality = length, orthogonality
        self.weight = _start(k, hidden_size)
        self.length_weight = _start(k, hidden_size)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Values:
        quality = _project(features, self.weight)
        if not self.training:
            return Values(quality[None], None, None, _nothing(quality))
        if lengths is None:
            raise InvalidSetting("lengths", None, "An odin head is trained with the number of tokens of each response.")
        length = _project(features, self.length_weight)
        cosine = torch.cosine_similarity(self.weight, self.length_weight, dim=-1).abs().mean()
        penalty = self.orthogonality * cosine
        if len(features) > 2:
            q, r, t = (x - x.mean(0) for x in (quality, length, torch.log1p(lengths.to(quality.dtype))[:, None]))
            of_quality, of_length = ((x * t).mean(0) / torch.sqrt((x**2).mean(0) * (t**2).mean(0) + _FLOOR) for x in (q, r))
            penalty = penalty + self.length * (of_quality.abs() - of_length).mean()
        return Values((quality + length)[None], None, None, penalty)

    def contrast(self, values: Values, shown: Tensor, loadings: Tensor, K: Tensor) -> Tensor:
        return linear_contrast(values.mean, shown, loadings, K)

    def weights(self, keys: Keys, *, seed: int = 0) -> Array | None:  # noqa: ARG002  # the seam's signature
        return None

    def linear(self) -> tuple[Tensor, Tensor] | None:
        return self.weight.detach(), self.weight.new_zeros(len(self.weight))

    def start_from(self, weight: ArrayLike | Tensor) -> None:
        _set(self.weight, weight)

    def to_dict(self) -> dict[str, Any]:
        return {"head": "odin", "length": self.length, "orthogonality": self.orthogonality}


class EnsembleHead(nn.Module):
    """M linear heads on the same features, each of which sees judgments with weights of its own (`member_weights`).

    The reward is the mean over members, ignorance the sd over members: what another sample of prompts would have changed. Members
    share the features, and with them every error that is in those. A linear head has one optimum, so members differ by what they saw:
    without the weights they end alike.

    Source: Efron 1979 (bootstrap); Osband et al. 2016 (heads on shared features); Coste et al. 2023 (pessimism by ensembles).
    """

    def __init__(self, hidden_size: int, k: int = 1, *, members: int = 8) -> None:
        super().__init__()
        _require(members >= 2, "members", members, "A spread takes at least 2.")
        self.weight = _start(members, k, hidden_size)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Values:  # noqa: ARG002  # the seam's signature
        members, k, _ = self.weight.shape
        mean = _project(features, self.weight.flatten(0, 1)).unflatten(-1, (members, k)).movedim(1, 0)
        return Values(mean, None, None, _nothing(mean))

    def contrast(self, values: Values, shown: Tensor, loadings: Tensor, K: Tensor) -> Tensor:
        return linear_contrast(values.mean, shown, loadings, K)

    def weights(self, keys: Keys, *, seed: int = 0) -> Array | None:
        return member_weights(keys, len(self.weight), seed)

    def linear(self) -> tuple[Tensor, Tensor] | None:
        return self.weight.detach().mean(0), self.weight.new_zeros(self.weight.shape[1])

    def start_from(self, weight: ArrayLike | Tensor) -> None:
        _set(self.weight, weight)

    def to_dict(self) -> dict[str, Any]:
        return {"head": "ensemble", "members": len(self.weight)}


Head = LinearHead | MeanVarianceHead | CategoricalHead | BottleneckHead | OdinHead | EnsembleHead

HEADS: dict[str, type[Head]] = {
    "linear": LinearHead, "mean_variance": MeanVarianceHead, "categorical": CategoricalHead, "bottleneck": BottleneckHead,
    "odin": OdinHead, "ensemble": EnsembleHead,
}  # fmt: skip
_SETTINGS: dict[str, tuple[str, ...]] = {
    "linear": (), "mean_variance": (), "categorical": ("atoms", "reach", "entropy"), "bottleneck": ("latent", "beta"),
    "odin": ("length", "orthogonality"), "ensemble": ("members",),
}  # fmt: skip


def head_of(head: str | Mapping[str, Any], hidden_size: int, k: int = 1) -> Head:
    """A head with fresh weights, drawn from torch's generator: by its name, or by a mapping of "head" and its settings, as `to_dict` gives.

    >>> head_of({"head": "bottleneck", "latent": 16}, 64).to_dict()
    {'head': 'bottleneck', 'latent': 16, 'beta': 0.1}

    Raises
    ------
    InvalidSetting
        If there is no such head, it has no such setting, or the setting cannot be used.
    """
    settings: dict[str, Any] = {"head": head} if isinstance(head, str) else dict(head)
    name = settings.pop("head", None)
    if name not in HEADS:
        raise InvalidSetting("head", name, f"Use one of {', '.join(HEADS)}.")
    for setting, value in settings.items():
        if setting not in _SETTINGS[name]:
            raise InvalidSetting(f"{name}({setting}=)", value, f"Its settings are {', '.join(_SETTINGS[name]) or 'none'}.")
    return HEADS[name](hidden_size, k, **settings)


# ---------------------------------------------------------------------------------------------- ensembles


def load_head(folder: str | Path) -> Head:
    """The head that a reward model was trained with, for what its one score does not say: spreads, members, latents.

    `load_head(folder)(open_reader(folder).read(turns))` gives the `Values` of conversations, from features as a tensor.

    Raises
    ------
    UnreadableSource
        If the folder was not written by training.
    """
    place = Path(folder)
    try:
        said = json.loads((place / "seamark.json").read_text(encoding="utf-8"))
        shape = said["head_shape"]
        with safe_open(place / "seamark.safetensors", framework="pt") as arrays:
            found = {name.removeprefix("head."): arrays.get_tensor(name) for name in arrays.keys() if name.startswith("head.")}  # noqa: SIM118  # no mapping
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UnreadableSource(str(folder), f"it holds no head ({error})", "Give a folder that seamark train wrote.") from None
    head = head_of(said["head"], shape["hidden"], shape["values"])
    head.load_state_dict(found)
    return head.eval()


def member_weights(keys: Keys, members: int, seed: int = 0) -> Array:
    """(members, n) Poisson(1) weight of each judgment for each member, the same for all judgments of one key (its prompt).

    A function of (member, key, seed) alone, so the same on every machine, in every epoch and in every order of the data. A member
    leaves 37% of the prompts out.

    Source: Oza & Russell 2001 (online bagging): Poisson(1) is what the bootstrap's multinomial counts become in many prompts.

    >>> member_weights(["a", "b", "a"], members=2)
    array([[2., 1., 2.],
           [1., 2., 1.]])
    """
    _require(members >= 1, "members", members, "Use at least 1.")
    names = list(map(str, keys.tolist() if isinstance(keys, np.ndarray) else keys))
    place = {key: i for i, key in enumerate(dict.fromkeys(names))}
    draws = np.empty((members, len(place)))
    for member in range(members):
        salt = f"{seed} {member} ".encode()
        digests = b"".join(hashlib.blake2b(salt + key.encode(), digest_size=8).digest() for key in place)
        draws[member] = np.frombuffer(digests, dtype="<u8") / 2.0**64
    reached = np.cumsum([math.exp(-1) / math.factorial(j) for j in range(18)])
    return np.searchsorted(reached, draws, side="right").astype(np.float64)[:, [place[key] for key in names]]


def average(checkpoints: Sequence[Member]) -> dict[str, Tensor]:
    """The weights of one model halfway between several of one architecture: means over checkpoint folders, or state dicts.

    Members must have started from the same weights, or the mean is of no use; they may differ in order of the data, learning rate,
    dropout or labels. Means are taken in float32 (float64 where the weights are) and returned in the members' precision. Where values
    are linear in what was trained, this is the mean of the predictions, at the cost of one model.

    In 20 simulations of small networks, five members trained from one start on 400 labels of which 25% were flipped, the average had an
    accuracy .026 +- .005 above its members' and .011 +- .005 above that of the mean of their predictions, and reproduced fewer of the
    flips: .555 +- .032 of them beside .636 +- .022 and .651 +- .025.

    Source: Rame et al. 2024 (WARM), equation 2.

    Raises
    ------
    InvalidSetting
        If there are fewer than two, or they differ in names, shapes or precisions, or in a tensor of whole numbers.
    UnreadableSource
        If a folder has no weights in safetensors.
    """
    if len(checkpoints) < 2:
        raise InvalidSetting("checkpoints", len(checkpoints), "A mean takes at least two.")
    first = _weights(checkpoints[0])
    total = {name: _precise(value) for name, value in first.items()}
    for place, checkpoint in enumerate(checkpoints[1:], 1):
        which = str(checkpoint) if isinstance(checkpoint, str | Path) else f"checkpoint {place}"
        other = _weights(checkpoint)
        if unlike := sorted(first.keys() ^ other.keys()):
            raise InvalidSetting(
                "checkpoints", which, f"It and the first do not both have {', '.join(unlike[:3])}: average one architecture."
            )
        for name, value in other.items():
            if (value.shape, value.dtype) != (first[name].shape, first[name].dtype):
                raise InvalidSetting(
                    "checkpoints",
                    which,
                    f"Its {name} is {tuple(value.shape)} {value.dtype}, the first one's {tuple(first[name].shape)} {first[name].dtype}: "
                    "average one architecture in one precision.",
                )
            if value.is_floating_point():
                total[name] += value.to(total[name])
            elif not torch.equal(value, first[name]):
                raise InvalidSetting("checkpoints", which, f"Its {name} holds whole numbers that are not the first one's.")
    return {
        name: (value / len(checkpoints)).to(first[name].dtype) if first[name].is_floating_point() else first[name].clone()
        for name, value in total.items()
    }


def _precise(value: Tensor) -> Tensor:
    """A copy to add to."""
    return value.detach().to(torch.float64 if value.dtype == torch.float64 else torch.float32, copy=True)


def _weights(checkpoint: str | Path | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if isinstance(checkpoint, Mapping):
        return checkpoint
    files = sorted(Path(checkpoint).glob("*.safetensors"))
    if not files:
        raise UnreadableSource(str(checkpoint), "has no weights in safetensors", "Give a folder that save_pretrained wrote.")
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as opened:
                found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no mapping
        except (SafetensorError, OSError) as error:
            raise UnreadableSource(str(file), f"cannot be read as safetensors ({error})", "Save the checkpoint again.") from None
    return found


# ---------------------------------------------------------------------------------------------- unlike the reference


@dataclass(frozen=True)
class Outliers:
    """How unlike a reference some samples are."""

    distance: Array
    """(n,) Mahalanobis distance of each sample from the reference, mean over folds."""
    p: Array
    """(n,) share of the reference that lies as far out or further: a p-value against "drawn as the reference was"."""
    level: float
    share: float
    """Of the samples with p at most `level`; `level` is what it comes to where they are drawn as the reference was."""
    low: float
    high: float
    """95% interval of that share, for samples and a reference drawn anew."""
    p_share: float
    """Probability of such a share or a larger one, were the samples drawn as the reference was."""
    n: int
    n_reference: int


def outlier_index(samples: ArrayLike, reference: ArrayLike, *, level: float = 0.05, folds: int = 5, seed: int = 0) -> Outliers:
    """Whether samples (latents of a policy's responses) lie outside a reference (latents of the responses it started from).

    The distance of a point is Mahalanobis', by the mean and covariance of the reference without the point's own fold, shrunk by
    Ledoit & Wolf. A sample's p-value counts the reference points that lie as far out, each measured without itself: no distribution
    of the latents is assumed, and fresh reference points are flagged at the rate `level` (Vovk 2015, cross-conformal predictors).
    Rows count as independent: give one response per prompt, or read the interval as too narrow.

    An alarm says that the policy has left what the reward was trained on, not that its reward is wrong there.

    Parameters
    ----------
    samples : (n, d); reference : (m, d), m at least twice the folds.

    Source: Miao et al. 2025 (journal version of InfoRM), the Mahalanobis outlier probability, which takes chi-squared p-values after a
    projection of reference and samples together. Their CSI / ICDS (2024), the distances of clusters of samples from the reference times
    cluster sizes, is not given: it grows with the number of samples, moves with the clustering's radius, and has no level.
    """
    X, R = np.asarray(samples, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if X.ndim != 2 or R.ndim != 2 or X.shape[1] != R.shape[1] or len(X) == 0:
        raise InvalidSetting("samples", f"{X.shape} beside a reference {R.shape}", "Give rows of latents, as many columns in both.")
    _require(0 < level < 1, "level", level, "Use a rate of false alarms between 0 and 1.")
    _require(folds >= 2, "folds", folds, "Use at least 2: a point must not be measured by itself.")
    _require(len(R) >= 2 * folds, "reference", len(R), f"{folds} folds take {2 * folds} rows; hundreds are sensible.")
    fold = np.random.default_rng(seed).permutation(len(R)) % folds
    further, total = np.zeros(len(X)), np.zeros(len(X))
    for f in range(folds):
        centre, whiten = _shape(R[fold != f])
        inside = np.sort(np.linalg.norm((R[fold == f] - centre) @ whiten, axis=1))
        out = np.linalg.norm((X - centre) @ whiten, axis=1)
        further += len(inside) - np.searchsorted(inside, out, side="left")
        total += out
    p = (1 + further) / (1 + len(R))
    share = float((p <= level).mean())
    # the threshold is estimated from the reference, so its size counts too
    size = 1 / (1 / len(X) + 1 / len(R))
    z = 1.96
    middle, half = (share + z**2 / (2 * size)), z * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    low, high = (middle - half) / (1 + z**2 / size), (middle + half) / (1 + z**2 / size)
    tail = float(norm.sf((share - level) / math.sqrt(level * (1 - level) / size)))
    return Outliers(total / folds, p, level, share, max(low, 0.0), min(high, 1.0), tail, len(X), len(R))


def _shape(rows: Array) -> tuple[Array, Array]:
    """Mean (d,), and W (d, d) such that |(x - mean) W| is the Mahalanobis distance by the shrunk covariance.

    Source: Ledoit & Wolf 2004, section 3.2: towards the mean variance times the unit matrix.
    """
    n, d = rows.shape
    centre = rows.mean(0)
    away = rows - centre
    S = away.T @ away / n
    size = float(np.trace(S)) / d
    apart = float(((S - size * np.eye(d)) ** 2).sum())
    noise = min((float(((away**2).sum(1) ** 2).mean()) - float((S**2).sum())) / n, apart)
    shrunk = noise / apart if apart > 0 else 1.0
    value, vector = np.linalg.eigh((1 - shrunk) * S + shrunk * size * np.eye(d))
    return centre, vector / np.sqrt(np.maximum(value, 1e-12 * max(size, 1e-300)))
