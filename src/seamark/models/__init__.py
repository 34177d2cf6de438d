"""The one likelihood: design, observation, people, utility, and the fit of them all."""

from seamark.models.fitting import fit
from seamark.models.observation import Choice, Davidson, Leniency, Observation, Position, Rating, Reliability, Strength, Thumbs
from seamark.models.people import Groups, Same
from seamark.models.prediction import predict
from seamark.models.result import Fit
from seamark.models.utility import Linear, Tabular

__all__ = [
    "Choice",
    "Davidson",
    "Fit",
    "Groups",
    "Leniency",
    "Linear",
    "Observation",
    "Position",
    "Rating",
    "Reliability",
    "Same",
    "Strength",
    "Tabular",
    "Thumbs",
    "fit",
    "predict",
]
