"""How much memory a run may still take, and how much of the pictures passes through a network at once.

Comes in: a device. Goes out: bytes. What is free is the least of what the machine has, what every control group around
the process allows (a container's limit, `systemd-run -p MemoryMax`), and what `ulimit -v` and `ulimit -d` leave.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PIXELS_AT_ONCE = 2**20
"""Pixels of the pictures that pass at once through a network whose features alone are wanted, on a CPU: 64 pictures of
128 px. More is no faster there, and 512 such pictures take 4 GiB in EfficientNet-Lite0 (docs/performance.md)."""
PIXELS_ON_A_GPU = 2**25


def pictures_at_once(size: int, device: torch.device) -> int:
    """Pictures (or views) of `size` px that pass through a network together where only their features are wanted.

    It follows from the size alone, never from what is free, so that a result does not depend on that.
    """
    pixels = PIXELS_AT_ONCE if device.type == "cpu" else PIXELS_ON_A_GPU
    return max(8, pixels // size**2)


def free(
    device: torch.device, sharers: int = 1, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that this process may still take on `device`; None where the system does not say.

    sharers: processes that share the device or the machine, this one among them. Each may take an even share of the
        whole, whichever of them comes first, and no more than is left.
    proc, groups: where Linux shows its processes and its control groups (version 1 and 2).
    """
    if device.type == "cuda":
        left, whole = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_allocated(device)
        left += torch.cuda.memory_reserved(device) - own  # what torch keeps from an earlier stage
        return max(0, min(left, whole // sharers - own))
    own = _fields(proc / "self" / "status").get("RssAnon:", 0) * 1024
    found = list(_of_limits(proc))
    for left, whole in (*_of_machine(proc), *_of_groups(proc, groups)):
        found.append(left if sharers == 1 else min(left, whole // sharers - own))
    return max(0, min(found)) if found else None


def holds(device: torch.device, size: int, sharers: int = 1) -> bool:
    """Whether a GPU may keep so many bytes of pictures for a whole training: an eighth of what this process may still
    take of it. A step was planned to fill four fifths (training/footprint.py)."""
    found = free(device, sharers)
    return found is not None and size < found / 8


def give_back() -> None:
    """Give the system the memory that a finished stage has freed, which the C library keeps (engine/device.py)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc alone has this call
        ctypes.CDLL(None).malloc_trim(0)


def _of_machine(proc: Path) -> Iterator[tuple[int, int]]:
    """What is available of how much."""
    found = _fields(proc / "meminfo")
    if "MemAvailable:" in found:
        yield found["MemAvailable:"] * 1024, found["MemTotal:"] * 1024


def _of_groups(proc: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """What each limited control group from the process's own upwards leaves of its limit; pages of files that nobody
    has used lately are given up before a limit is met, and count as free."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif not controllers:
            root, names = groups, ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        here = root / path.lstrip("/")
        for folder in (here, *here.parents):
            if not folder.is_relative_to(root):
                break
            limit, used = _number(folder / names[0]), _number(folder / names[1])
            if limit is not None and used is not None:
                yield limit - used + _fields(folder / "memory.stat").get(names[2], 0), limit


def _of_limits(proc: Path) -> Iterator[int]:
    if resource is None:
        return
    status = _fields(proc / "self" / "status")
    for limit, field in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY and field in status:
            yield most - status[field] * 1024


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The file's number; None where there is none, or it says `max`."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _fields(path: Path) -> dict[str, int]:
    """Lines `name number ...`."""
    words = (line.split() for line in _lines(path))
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}
