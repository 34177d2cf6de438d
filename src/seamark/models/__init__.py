"""The one likelihood: design, observation, people, utility, and the fit of them all."""

from seamark.models.effects import Bias, Lapse, Leniency, Missingness, Position, Reliability, Scale, Source, Taste
from seamark.models.fitting import fit
from seamark.models.observation import Choice, Davidson, Luce, Observation, Rating, Strength, Thumbs, rao_kupper
from seamark.models.people import Groups, Personas, Same, Varying
from seamark.models.prediction import for_person, predict
from seamark.models.resampling import Bootstrap, bootstrap
from seamark.models.result import Fit
from seamark.models.utility import Context, Dynamic, Linear, MultiAxis, Network, Tabular
from seamark.models.weighting import by_age, by_exposure

__all__ = [
    "Bias",
    "Bootstrap",
    "Choice",
    "Context",
    "Davidson",
    "Dynamic",
    "Fit",
    "Groups",
    "Lapse",
    "Leniency",
    "Linear",
    "Luce",
    "Missingness",
    "MultiAxis",
    "Network",
    "Observation",
    "Personas",
    "Position",
    "Rating",
    "Reliability",
    "Same",
    "Scale",
    "Source",
    "Strength",
    "Tabular",
    "Taste",
    "Thumbs",
    "Varying",
    "bootstrap",
    "by_age",
    "by_exposure",
    "fit",
    "for_person",
    "predict",
    "rao_kupper",
]
