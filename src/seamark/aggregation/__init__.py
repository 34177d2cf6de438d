"""Whose values, how weighted, how conflicts are settled: the charter, and what each choice costs whom."""

from seamark.aggregation.charter import Charter, Effects, Electorate, Floors, InvalidCharter, Recency
from seamark.aggregation.collective import Collective, collective_gaps
from seamark.aggregation.juries import counterfactual_juries, jury_sizes, other_pools
from seamark.aggregation.matching import Community, Match, match, match_community, match_person
from seamark.aggregation.plurality import Bubbles, Views, bubbles, charters_for, views_of, views_of_fit
from seamark.aggregation.population import Target, post_stratify, preferences, rake, rater_profiles, raters_needed, representation
from seamark.aggregation.profiles import Profile
from seamark.aggregation.rules import Decision, decide

__all__ = [
    "Bubbles",
    "Charter",
    "Collective",
    "Community",
    "Decision",
    "Effects",
    "Electorate",
    "Floors",
    "InvalidCharter",
    "Match",
    "Profile",
    "Recency",
    "Target",
    "Views",
    "bubbles",
    "charters_for",
    "collective_gaps",
    "counterfactual_juries",
    "decide",
    "jury_sizes",
    "match",
    "match_community",
    "match_person",
    "other_pools",
    "post_stratify",
    "preferences",
    "rake",
    "rater_profiles",
    "raters_needed",
    "representation",
    "views_of",
    "views_of_fit",
]
