"""The command line: parse, call one public function, print. Heavy imports happen inside the commands."""

from seamark.cli.program import app, main

__all__ = ["app", "main"]
