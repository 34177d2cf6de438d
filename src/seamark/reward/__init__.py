"""The signal as others consume it."""

from seamark.reward.signal import Reward, Scores, export_signal

__all__ = ["Reward", "Scores", "export_signal"]
