"""Where a run computes, and in which precision."""

import contextlib
import copy
import ctypes
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from headstart.engine import attention
from headstart.records.config import DEVICES
from headstart.records.errors import InputError, RunError
from headstart.records.validation import MOST_THREADS

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers in glibc's malloc.h."""

OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
)
"""What an error says that means it and is no torch.OutOfMemoryError; two codes of cuDNN 9 end with the last."""


@dataclass(frozen=True)
class Compute:
    """A device and the precision of its matrix products.

    Attributes:
        device: where tensors live.
        dtype: torch.bfloat16 (autocast; weights stay float32) or torch.float32.
        sharers: processes that share the device, this one among them.
    """

    device: torch.device
    dtype: torch.dtype
    sharers: int = 1

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        low = torch.autocast(self.device.type, dtype=self.dtype)
        return attention.in_float32(low) if attention.pays(self.device, self.dtype) else low

    @property
    def precision(self) -> str:
        """`bfloat16` or `float32`."""
        return "bfloat16" if self.dtype == torch.bfloat16 else "float32"


def choose(device: str = "auto", precision: str = "auto", threads: int | None = None, sharers: int = 1) -> Compute:
    """The device and precision that the options and the machine give; sets the number of CPU threads.

    sharers: processes that share the device, this one among them.
    Raises InputError when the named device is not there.
    """
    torch.set_num_threads(checked_threads(threads) or max(1, available_cores() // processes_here()))
    chosen = named(device)
    if chosen.type == "cpu":
        _keep_freed_memory()
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32; speed is what bfloat16 is for
        torch.backends.cudnn.benchmark = True
    if precision == "auto":
        precision = "bfloat16" if _native_bfloat16(chosen) else "float32"
    return Compute(chosen, torch.bfloat16 if precision == "bfloat16" else torch.float32, sharers)


def checked_threads(threads: int | None) -> int | None:
    """The option as it is. Raises InputError for fewer than one, and for more than any machine has use for."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        bound = "at least 1" if threads < 1 else f"at most {MOST_THREADS}"
        raise InputError(f"threads is {threads}; it must be {bound}")
    return threads


def processes_here() -> int:
    """How many processes torchrun started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def named(device: str) -> torch.device:
    """The device of an option, a GPU with its number. Raises InputError when it is not there."""
    if not re.fullmatch(DEVICES, device):
        raise InputError(f"device is {device!r}; it must be auto, cpu, cuda, cuda:N or mps")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {device}, but this machine has {torch.cuda.device_count()} CUDA devices; use cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device is mps, but this machine has no Apple GPU; use cpu")
    return torch.device("cuda", chosen.index or 0) if chosen.type == "cuda" else chosen


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host's on the device; to a GPU by way of page-locked memory, so that the host does not wait."""
    waits = device.type != "cuda" or tensor.device.type != "cpu"
    return tensor.to(device) if waits else tensor.pin_memory().to(device, non_blocking=True)


def zscored(pictures: torch.Tensor, mean: torch.Tensor | None, std: torch.Tensor | None) -> torch.Tensor:
    """uint8, or float from 0 to 1, (N, 3, S, S) -> float32 in [0, 1], Z-scored where mean and std (3,) are given."""
    x = pictures.float() if pictures.is_floating_point() else pictures.float() / 255
    if mean is None or std is None:
        return x
    return (x - sent(mean, x.device)[:, None, None]) / sent(std, x.device)[:, None, None]


def sent_together(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """As `sent`, of several tensors: to a GPU in one copy, of which each is a part."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    whole = sent(packed(tensors), device)
    return unpacked(whole, tensors)


def packed(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The bytes of tensors one after the other, uint8, each beginning at a multiple of eight."""
    parts = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors]
    return torch.cat([torch.nn.functional.pad(part, (0, -len(part) % 8)) for part in parts])


def unpacked(whole: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The parts of what `packed` made of tensors of these shapes and types."""
    parts, start = [], 0
    for tensor in tensors:
        parts.append(whole[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += tensor.nbytes + -tensor.nbytes % 8
    return parts


def fetched(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the host of tensors by name; those of a GPU all at once, and waited for once."""
    there = hosted(dict(tensors))
    return {name: it.detach().clone() if it is tensors[name] else it for name, it in there.items()}


def hosted(tree: Any) -> Any:
    """Dicts, lists and tuples with every tensor of a GPU in them copied to the host, by CUDA to page-locked memory, all
    at once and waited for once; the host's own tensors as they are."""
    copied = False

    def walk(item: Any) -> Any:
        nonlocal copied
        match item:
            case torch.Tensor():
                if item.device.type != "cuda":
                    return item if item.device.type == "cpu" else item.detach().cpu()
                copied = True
                return item.detach().to("cpu", non_blocking=True)
            case dict():
                found = copy.copy(item)  # a state_dict has versions beside its content
                found.update({key: walk(value) for key, value in item.items()})
                return found
            case list():
                return [walk(value) for value in item]
            case tuple():
                return tuple(walk(value) for value in item)
        return item

    there = walk(tree)
    if copied:
        torch.cuda.synchronize()
    return there


@contextlib.contextmanager
def tuned(when: bool) -> Iterator[None]:
    """Within, cuDNN tries its kernels on shapes that it meets for the first time only `when`: for the odd batch at the
    end of a pass that costs more than any of them."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before and when
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _keep_freed_memory() -> None:
    """Tell glibc to keep what a step frees for the next one.

    By default it returns large blocks to the system at once, and each step of a training on a CPU faults tens of
    thousands of pages in again (`python -m benchmarks step`).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library has no such switch
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 32 << 20)  # older ones allow no more
        mallopt(M_TRIM_THRESHOLD, -1)


@contextlib.contextmanager
def enough_memory(device: torch.device, if_not: str) -> Iterator[None]:
    """Turn running out of memory in here into a RunError that ends with `if_not`, what needs less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"{device} is out of memory; {if_not}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: torch says so in a RuntimeError where the CPU's allocator, the CUDA
    runtime (an AcceleratorError), cuBLAS or cuDNN found none."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(said in str(error) for said in OUT_OF_MEMORY)
    )


def available_cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Without these instructions bfloat16 on a CPU is emulated and slower than float32.
    multiplies = device.type == "cpu" and torch.backends.mkldnn.is_available() and _cpu_multiplies_bfloat16()
    return multiplies and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.backends.cpu.get_cpu_capability()
    if capabilities.startswith("SVE") or capabilities == "NEON":
        return True
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())
