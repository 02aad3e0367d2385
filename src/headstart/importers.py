"""The name by which `headstart.engine.importers` went in 0.1; scripts written then find it here."""

import sys

from headstart.engine import importers

sys.modules[__name__] = importers
