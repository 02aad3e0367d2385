"""The name by which `headstart.records.config` went in 0.1; scripts written then find it here."""

import sys

from headstart.records import config

sys.modules[__name__] = config
