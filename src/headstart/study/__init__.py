"""Many runs: a grid, done once each, here or on a cluster, and what became of them."""

from headstart.study.calls import Plan, Summary, plan, run
from headstart.study.file import Planned, Study, expand, load
from headstart.study.progress import Status, status
from headstart.study.shared import RayOptions

__all__ = ["Plan", "Planned", "RayOptions", "Status", "Study", "Summary", "expand", "load", "plan", "run", "status"]
