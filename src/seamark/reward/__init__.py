"""The signal as others consume it."""

from seamark.reward.signal import Reward, Scores, Signal, export_signal

__all__ = ["Reward", "Scores", "Signal", "export_signal"]
