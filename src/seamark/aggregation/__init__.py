"""Whose values, how weighted, how conflicts are settled: the charter, and what each choice costs whom."""

from seamark.aggregation.charter import Charter, Effects, Electorate, Floors, InvalidCharter, Recency
from seamark.aggregation.collective import Collective, collective_gaps

__all__ = ["Charter", "Collective", "Effects", "Electorate", "Floors", "InvalidCharter", "Recency", "collective_gaps"]
