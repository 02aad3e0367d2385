"""`python -m benchmarks NAME ...` runs benchmarks/NAME.py."""

import importlib
import pkgutil
import signal
import sys

import benchmarks


def main() -> None:
    """Hand the arguments to the named benchmark."""
    helpers = ("__main__", "common", "authors", "lightly_users")
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in helpers]
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        print(f"usage: python -m benchmarks {{{','.join(names)}}} [options]", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main()
