"""`THRESHOLDS`: every number at which a check changes its verdict, in one place, with the reason for its value.

A verdict is a reading aid, not a test: the estimate and its interval are what a finding says. *Blocking* is kept for data or
models from which nothing sound can be learned without a repair.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Where a finding turns into a notice, a warning or a blocking finding. Shares lie in [0, 1]."""

    # ---- agreement
    alpha_notice: float = 0.667
    """Below it a notice: Krippendorff (2004) calls 0.667 the lowest value from which tentative conclusions can be drawn."""
    alpha_warning: float = 0.1
    """Warning if the whole interval lies below: answers to the same question are then barely more alike than random ones."""
    ceiling_warning: float = 0.55
    """Warning if the whole interval lies below: the other raters then predict an answer hardly better than a coin."""
    self_notice: float = 0.8
    """Below it a notice: a rater who answers one in five repeated questions otherwise bounds what any model can reach."""

    # ---- how it was shown
    position_warning: float = 0.05
    """Warning if the interval leaves out 0.5 and the share is this far from it: at 5 points, swapping a pair of equal responses
    changes one answer in ten. An interval without 0.5 alone is a notice."""
    consistency_notice: float = 0.8
    """Below it a notice: as `self_notice`, for one rater who saw the same pair in both orders."""

    # ---- how it was written
    length_warning: float = 0.15
    """Warning if the interval leaves out 0.5 and the share is this far from it: a rule that only counts characters is then right
    65% of the time, which is where published reward models start (RewardBench, Lambert et al. 2024)."""
    style_warning: float = 0.5
    """Warning if a coefficient's interval lies beyond it, in logits per standard deviation of the difference: one standard
    deviation of style then moves a coin's toss from 50% to 62%."""

    # ---- what was asked
    duplicates_warning: float = 0.01
    """Share of judgments that repeat another: above it intervals that take them as new are too narrow by a visible amount."""
    near_duplicates_warning: float = 0.05
    """Share of responses that nearly repeat another one: above it a random split puts the same text on both sides."""
    near_duplicate_jaccard: float = 0.9
    """Two texts count as near-duplicates from this Jaccard similarity of their shingles (Lee et al. 2022 used 0.8 on 5-grams for
    web text; answers to one prompt share more wording, so the stricter value)."""
    identical_pairs_warning: float = 0.01
    """Share of pairs whose two texts are the same: they carry no information about value, and above 1% point to a broken export."""
    leakage_blocking: float = 0.01
    """Share of held-out judgments whose prompt and responses occur in train: at 1% an accuracy of 0.70 can rest on a whole
    point of memory, the size of the differences that are usually reported."""
    leakage_warning: float = 0.01
    """Share of held-out judgments whose prompt alone, or a near-copy of it, occurs in train."""
    few_prompts_notice: float = 10.0
    """Below this effective number of prompts a notice: conclusions are about these prompts, and no interval over them can be trusted."""
    narrow_notice: float = 0.5
    """Share of judgments on the largest tenth of prompts above which the data is called narrow (an even spread gives 0.1)."""
    top_raters_notice: float = 0.5
    """Share of judgments by the most active tenth of raters above which their standard is said to dominate (MD-Agreement: 0.59)."""
    few_judgments: int = 5
    """Raters with fewer judgments than this: their reliability is set by the prior, not by what they did. The spread of a slice over
    raters or prompts likewise leaves out those with fewer: the mean of one judgment is 0 or 1."""
    intransitive_notice: float = 0.125
    """Half of the 0.25 that a random tournament gives: above it an order of the responses explains little."""
    undecided_notice: float = 0.3
    """Share of ties above which a model without ties throws away a large part of the data."""

    # ---- used by the checks on models
    raters_at_chance_notice: float = 0.05
    """Share of raters who answer at chance above which there is a notice: one question in seven with three raters then has one."""
    raters_at_chance_warning: float = 0.15
    """Share of raters who answer at chance above which there is a warning: two in five questions with three raters then have one."""
    raters_at_chance_blocking: float = 0.5
    """Share of raters whose reliability cannot be told from zero: above one half the majority of answers is noise."""
    accuracy_margin_blocking: float = 0.0
    """Blocking if the upper bound of (accuracy - best trivial baseline) lies below: the model then knows less than a rule
    such as "the longer one"."""
    calibration_warning: float = 0.05
    """Warning if the lower bound of the calibration error lies above: what is predicted with 70% then happens in less
    than 65%, or more than 75%, of cases."""
    calibration_times_perfect: float = 2.0
    """The calibration error must also be this many times that of a perfectly calibrated fit: noise in the bins counts as error."""
    placed_warning: float = 0.5
    """Below this share of judgments that the fit can place there is a warning: the accuracy is then that of the smaller part."""
    raters_told: float = 0.05
    """Below this mean information about a rater (in nats, the posterior against the prior) it cannot be told who answers at chance:
    the share shown would be the prior's. 0.05 nats move a probability of 10% by about 8 points."""
    decrement_blocking: float = 1.0
    """Where the fit did not converge, blocking from a last step of this many standard errors: an estimate may then be off by more
    than its own standard error. Below it, a warning."""
    direction_accuracy_blocking: float = 0.5
    """Blocking if the upper bound of held-out accuracy lies below: labels that predict better reversed are reversed."""
    generalisation_warning: float = 0.05
    """Warning if what is lost on new prompts, raters, ... is surely something and more than this share of accuracy: five points are the
    difference between neighbouring places on reward model leaderboards several times over (RewardBench, Lambert et al. 2024)."""
    cut_parts_blocking: int = 2
    """Blocking if the comparison graph of responses without text falls into this many parts: utilities of different parts have
    no common zero (Ford 1957), so their order is undefined."""

    # ---- probes of a reward model
    bought_notice: float = 0.02
    """Points of preference (as a share) that a trick buys, at the low end, above which there is a notice: it then turns one even choice in 50."""
    bought_warning: float = 0.05
    """The same for a warning: one even choice in 20, which best-of-16 makes a habit."""
    moved_notice: float = 0.05
    """Mean size of the change in preference, low end, by what should not matter, above which there is a notice."""
    moved_warning: float = 0.1
    """The same for a warning: a typing error then turns one even choice in ten, as much as people's own second thoughts do (`self_notice`)."""
    memory_warning: float = 0.1
    """Points of agreement, low end, by which judgments seen (or prompts like them) may be ahead of others: at 10 the figure on what was seen
    says more about memory than most differences between reward models that are published."""
    overconfident_warning: float = 0.2
    """Warning if a gap of one logit is surely worth less than 1 less this: what is said with 88% then happens in less than 83%."""
    style_decides: float = 0.75
    """Share of a reward's decisions that style must foretell, low end, before it can be called style: half-way from a coin to all of them."""
    substance_least: float = 0.55
    """Agreement with people, both sides of style counting alike, below which a reward that style foretells has no substance: style alone gives 0.5,
    and what regression leaves of a style that is not linear a little more."""

    # ---- policies that follow a reward, without gold
    outliers_notice: float = 2.0
    """Notice if what the strongest policy chooses surely lies this many times as far out as what the start policy gives (squared distance):
    most of it is then where little was judged."""
    drift_notice: float = 1.0
    """Notice if mean features surely move by this many standard deviations: what is chosen then has, in the typical feature, what one response
    in six of the start policy's has."""
    residual_notice: float = 1.64
    """Notice if answers surely contradict the rewards that are chosen this many times as much: the highest twentieth of the worlds without a
    hump (docs/benchmarks.md), where a point estimate beyond it, at any n, was timely in two worlds of five and false in 6%; a notice here asks
    for more, the whole interval at the last n."""

    # ---- whose values
    regret_notice: float = 0.5
    """Mean regret of a group, in logits a prompt: its own favourite would then win 62% of its judgments against what is chosen."""
    fuzzy_notice: float = 0.1
    """How far the share of people whose favourite is chosen may lie below what one choice could reach: one person in ten."""
    turned_notice: float = 0.1
    """Share of choices that admissible weights, or another rule, would make otherwise: one in ten is the charter's doing, not the data's."""
    kinds_notice: float = 0.5
    """Adjusted Rand index from which kinds of raters are said to be found again: half-way between chance and the same kinds."""
    false_discoveries: float = 0.05
    """Expected share of false findings among questions or groups that are named (Benjamini & Hochberg 1995), and the p-value of a conflict."""

    # ---- why a reward decides as it does
    fidelity_notice: float = 0.5
    """Notice where the interval of the share of a reward that readable features tell reaches below: most of it may then lie elsewhere."""
    influence_notice: float = 0.8
    """Notice where the interval of the correlation between predicted and actual change reaches below: 0.8 leaves a third of the change untold."""


THRESHOLDS = Thresholds()
