"""Where a run computes, and in which precision."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

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
    """

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @property
    def precision(self) -> str:
        """`bfloat16` or `float32`."""
        return "bfloat16" if self.dtype == torch.bfloat16 else "float32"


def choose(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Compute:
    """The device and precision that the options and the machine give; sets the number of CPU threads.

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
    return Compute(chosen, torch.bfloat16 if precision == "bfloat16" else torch.float32)


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


def fetched(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the host of tensors by name; those of a GPU all at once, and waited for once."""
    on_gpu = any(tensor.device.type == "cuda" for tensor in tensors.values())
    copies = {name: tensor.detach().to("cpu", non_blocking=on_gpu, copy=True) for name, tensor in tensors.items()}
    if on_gpu:
        torch.cuda.synchronize()
    return copies


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
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and _cpu_multiplies_bfloat16()


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.backends.cpu.get_cpu_capability()
    if capabilities.startswith("SVE") or capabilities == "NEON":
        return True
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())
