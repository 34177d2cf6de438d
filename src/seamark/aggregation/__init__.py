"""Whose values, how weighted, how conflicts are settled: the charter, and what each choice costs whom."""

from seamark.aggregation.charter import Charter, Effects, Electorate, InvalidCharter, collective_gaps
from seamark.aggregation.matching import Community, Match, match, match_community, match_person
from seamark.aggregation.plurality import Bubbles, Figure, Views, Welfare, bubbles, charters_for, views_of, views_of_fit, welfare

__all__ = [
    "Bubbles",
    "Charter",
    "Community",
    "Effects",
    "Electorate",
    "Figure",
    "InvalidCharter",
    "Match",
    "Views",
    "Welfare",
    "bubbles",
    "charters_for",
    "collective_gaps",
    "match",
    "match_community",
    "match_person",
    "views_of",
    "views_of_fit",
    "welfare",
]
