"""The three ways a command can end other than well; `cli.py` turns each into its exit code, without a traceback."""


class HeadstartError(Exception):
    """Base of every error Headstart raises on purpose. The message is one sentence for the person at the keyboard."""

    exit_code = 1


class RunError(HeadstartError):
    """A run failed for a reason that is not the caller's input (exit code 1)."""


class InputError(HeadstartError, ValueError):
    """Bad input: what was wrong, where, and what would be right (exit code 2)."""

    exit_code = 2


class Interrupted(HeadstartError):  # noqa: N818 - a request to stop is no error
    """Stopped by a signal or `--max-seconds` after saving; the same command goes on from there (exit code 75)."""

    exit_code = 75
