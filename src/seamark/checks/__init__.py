"""Findings about data and models: `diagnose` and `evaluate` are the same thing with other inputs."""

from seamark.checks.data import diagnose
from seamark.checks.findings import Finding, Findings
from seamark.checks.model import evaluate

__all__ = ["Finding", "Findings", "diagnose", "evaluate"]
