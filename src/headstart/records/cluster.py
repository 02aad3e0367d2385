"""How work goes to a Ray cluster, as options say it. Nothing here imports Ray or torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RayOptions:
    """How runs, or parts of a set, go to a Ray cluster."""

    address: str | None = None
    """Of an existing cluster (`auto`, `HOST:PORT`, `ray://HOST:PORT`). Unset: one is started on this machine."""
    cpus: float | None = None
    """CPUs that Ray sets aside for a task, a run or a part of a set. Unset: its threads."""
    gpus: float | None = None
    """GPUs, or a share of one, for a task: 0.25 lets four share a GPU. Unset: 1 where the cluster has any."""
