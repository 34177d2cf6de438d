"""Two terms that others add to the loss of a reward model, as subclasses of the trainer: `reward_training.py --learn --terms` runs them.

- Contrastive (Wang et al. 2024, Secrets of RLHF II; Gao et al. 2021, SimCSE, equation 1): the features of a response read twice under
  different dropout are nearer to each other than to those of the other responses of the batch: InfoNCE of cosines at temperature .05.
- Meta-learning (the same, MetaRM): the gradient is taken where a step has already been made towards telling fresh responses apart,
  theta + eta grad J, J the mean of sigmoid(|r_i - r_j|) over pairs of responses to one prompt that nobody judged.

Neither paper's code has the terms (their reward trainer is the plain one), so strengths are ours: .1 for the first, eta = the learning rate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seamark.models.training import FeedbackTrainer

STRENGTH = 0.1
TEMPERATURE = 0.05
DROPOUT = 0.1


class Contrastive(FeedbackTrainer):
    """Adds the contrastive term."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        del return_outputs, num_items_in_batch
        features: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, given: features.append(given[0]))
        try:
            loss = super().compute_loss(model, inputs)
            for p in (DROPOUT, 0.0):  # the judgments are read without, as in the plain trainer
                _set_dropout(model, p)
                if p:
                    model(**self._model_inputs(inputs))
        finally:
            hook.remove()
        one, two = (nn.functional.normalize(f.float(), dim=-1) for f in features)
        alike = one @ two.T / TEMPERATURE
        return loss + STRENGTH * nn.functional.cross_entropy(alike, torch.arange(len(alike), device=alike.device))


def _set_dropout(model: nn.Module, p: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        if hasattr(module, "attention_dropout"):  # Llama holds the probability as a number
            module.attention_dropout = p


class Meta(FeedbackTrainer):
    """Takes each gradient a step further towards telling fresh responses apart: those of `eval_dataset`, whose judgments are not read."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        fresh: Any = self.eval_dataset
        batch = self._prepare_inputs(fresh[self.state.global_step % len(fresh)])
        values = model(**self._model_inputs(batch))["mean"][0, :, 0]
        place = {int(code): i for i, code in enumerate(batch["responses"])}
        shown = fresh.objective.cells(0).block.shown[batch["cells"][0].cpu().numpy()]
        left, right = (torch.tensor([place[int(code)] for code in side]) for side in shown.T)
        weights = [p for p in model.parameters() if p.requires_grad]
        spread = torch.sigmoid((values[left] - values[right]).abs()).mean()
        step = [None if g is None else self.args.learning_rate * g for g in torch.autograd.grad(spread, weights, allow_unused=True)]
        _move(weights, step, 1.0)
        loss = super().training_step(model, inputs, num_items_in_batch)
        _move(weights, step, -1.0)
        return loss


def _move(weights: list[nn.Parameter], step: list[Tensor | None], sign: float) -> None:
    with torch.no_grad():
        for p, d in zip(weights, step, strict=True):
            if d is not None:
                p.add_(d, alpha=sign)


TERMS = {"contrastive": Contrastive, "meta": Meta}
