"""The name by which `headstart.records.errors` went in 0.1; scripts written then find it here."""

import sys

from headstart.records import errors

sys.modules[__name__] = errors
