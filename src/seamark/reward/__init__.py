"""The signal as others consume it."""

from seamark.reward.alarm import Alarm, forecast
from seamark.reward.catalogue import Catalogue, InvalidEntry, Mixture, Probe, add_entry, write_catalogue
from seamark.reward.controls import Guards, follow, tilt_to
from seamark.reward.policies import Policies, Pool, best_of_n, tilt
from seamark.reward.scorers import Scored, open_scorer, score_texts
from seamark.reward.signal import Reward, Scores, Signal, export_reward_model, export_signal, open_fit

__all__ = [
    "Alarm",
    "Catalogue",
    "Guards",
    "InvalidEntry",
    "Mixture",
    "Policies",
    "Pool",
    "Probe",
    "Reward",
    "Scored",
    "Scores",
    "Signal",
    "add_entry",
    "best_of_n",
    "export_reward_model",
    "export_signal",
    "follow",
    "forecast",
    "open_fit",
    "open_scorer",
    "score_texts",
    "tilt",
    "tilt_to",
    "write_catalogue",
]
