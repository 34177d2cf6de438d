"""The signal as others consume it."""

from seamark.reward.catalogue import Catalogue, InvalidEntry, Mixture, Probe, add_entry, write_catalogue
from seamark.reward.signal import Reward, Scores, Signal, export_reward_model, export_signal, open_fit

__all__ = [
    "Catalogue",
    "InvalidEntry",
    "Mixture",
    "Probe",
    "Reward",
    "Scores",
    "Signal",
    "add_entry",
    "export_reward_model",
    "export_signal",
    "open_fit",
    "write_catalogue",
]
