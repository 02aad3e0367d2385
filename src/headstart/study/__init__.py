"""Many runs: a grid, done once each, here or on a cluster, and what became of them."""

from headstart.records.cluster import RayOptions
from headstart.study.calls import Plan, Summary, plan, run
from headstart.study.file import Planned, Study, StudyOptions, expand, load
from headstart.study.progress import Status, status
from headstart.study.shared import RunOptions

__all__ = [
    "Plan",
    "Planned",
    "RayOptions",
    "RunOptions",
    "Status",
    "Study",
    "StudyOptions",
    "Summary",
    "expand",
    "load",
    "plan",
    "run",
    "status",
]
