"""The signal as others consume it."""

from seamark.reward.signal import Reward, Scores, Signal, export_reward_model, export_signal, open_fit

__all__ = ["Reward", "Scores", "Signal", "export_reward_model", "export_signal", "open_fit"]
