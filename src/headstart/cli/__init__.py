"""The command line: parse, call, print."""

from headstart.cli.commands import main

__all__ = ["main"]
