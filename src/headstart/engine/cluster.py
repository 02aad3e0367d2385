"""A Ray cluster to work on: an existing one, or one of our own on this machine that nobody else can reach.

Comes in: `RayOptions`. Goes out: Ray, connected, and what each task is given. What the tasks are is not known here.
"""

import contextlib
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headstart.engine.device import available_cores
from headstart.records.cluster import RayOptions
from headstart.records.errors import InputError, RunError

RETRIES = 3
"""Nodes of a cluster are lost more often than processes of a machine."""
STARTS = 3
PATIENCE = 180
"""Seconds that each of Ray's own processes is given to start on this machine: the 30 that Ray gives them by itself are
too few where many others compute, and a start that is begun again is no faster."""
WAITS = (
    "gcs_server_port_wait_time_s",
    "py_gcs_connect_timeout_s",
    "gcs_server_request_timeout_seconds",
    "worker_register_timeout_seconds",
)
"""Ray's settings of how long it waits, in seconds."""


@contextlib.contextmanager
def cluster(options: RayOptions) -> Iterator[Any]:
    """Ray, connected: to the cluster that was named, or to one of our own that nobody else can reach."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address is None:  # ends with us; one that was there is left as it is
        settings |= {"num_cpus": available_cores(), "include_dashboard": False}
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray then listens on the loopback address alone
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # against other users of this machine
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the home folder
        for name in WAITS:
            os.environ.setdefault(f"RAY_{name}", str(PATIENCE))
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError("--executor ray needs Ray; install it with `pip install 'headstart[ray]'`") from None
    # Ray lets its workers import from the folder that it is started in, and there a folder of pictures may hold a
    # `torch.py`. Without `local` it would join whatever cluster was last started on this machine, and die with it.
    with tempfile.TemporaryDirectory() as empty:
        with contextlib.chdir(empty), _handlers_kept():
            _init(ray, options.address, settings)
        try:
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray's own handler of SIGTERM ends the process at once; who asks a study to stop wants its runs saved."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            signal.signal(signal.SIGTERM, before)


def _init(ray: Any, address: str | None, settings: dict[str, Any]) -> None:
    """Start Ray or join it. A start on this machine that took too long is begun again."""
    if address is not None:
        ray.init(address=address, **settings)
        return
    for left in range(STARTS - 1, -1, -1):
        try:
            with _patient():
                ray.init(address="local", **settings)
            return
        except Exception as error:  # Ray raises no kind of its own here
            if "timed out" not in str(error).lower():
                raise
            ray.shutdown()
            if not left:
                raise RunError(f"Ray did not start on this machine in {STARTS} tries; is it very busy?") from None


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Let Ray wait for its own node for PATIENCE seconds: how long that is, alone among its waits, is a constant of its
    code. Nothing changes where another version has no such function."""
    services: Any = sys.modules.get("ray._private.services")
    if not hasattr(services, "get_node"):
        yield
        return
    asked = services.get_node

    def waiting(*which: Any) -> Any:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return asked(*which)
            except RuntimeError:  # the node is not there yet
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    services.get_node = waiting
    try:
        yield
    finally:
        services.get_node = asked


@dataclass(frozen=True)
class Share:
    """What a task of a cluster is given.

    Attributes:
        threads: CPU threads that it computes with.
        resources: what Ray sets aside for it.
        sharers: tasks that share a device, of which each counts with its share of the memory.
    """

    threads: int
    resources: dict[str, float]
    sharers: int


def share(ray: Any, options: RayOptions, threads: int | None, device: str) -> Share:
    """What each task is given, from the options and what the cluster has."""
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0 and device != "cpu"
    threads = threads or max(1, int(options.cpus or 1))
    # On this machine a task may ask for more threads than there are cores, as without Ray.
    cpus = options.cpus or (threads if options.address else min(threads, available_cores()))
    resources = {"num_cpus": cpus, "num_gpus": options.gpus if options.gpus is not None else float(has_gpu)}
    own = 0 if options.address else available_cores()  # what other machines hold at once is not known here
    sharers = max(1, int(1 / (options.gpus or 1) if has_gpu else own / cpus))
    return Share(threads, resources, sharers)


def raised(error: Exception) -> Exception:
    """What a task raised: Ray wraps it, with the trace of the other process as its text."""
    while isinstance(cause := getattr(error, "cause", None), Exception):
        error = cause
    return error
