"""CUDA tensors without a GPU, and what a real one would have to do: docs/performance.md, On a GPU.

A pretended tensor has shape, type, strides and an autograd graph, but no memory: it is one of torch's fake tensors that
says it lies on `cuda:0`. The CPU's own tensors stay real, so the code under test draws, plans and branches as it
does on a machine with a GPU. `Watch` sees every operation: what waits for the device, what is copied to it and whether
that waits, how many kernels are launched, and in which precision and layout convolutions run.

What it cannot see: memory, time, the kernels that cuDNN would choose, more than one launch of an operation that needs
several, and other threads. Values read back from the device are ones. Autocast follows the CPU's list of operations,
which has convolutions and matrix products in common with the GPU's.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from headstart import sigreg
from headstart.autoencoders import masked
from headstart.engine import graphs, resampling
from headstart.engine.prefetch import Prefetch

CUDA = torch.device("cuda", 0)
GENERATOR = torch.Generator
WAITING = {
    "_linalg_eigh",
    "_linalg_svd",
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
"""Operations of whose result the host needs a number."""
NO_KERNEL = {"device", "empty", "empty_like", "empty_strided", "is_pinned", "new_empty", "new_empty_strided", "resize_"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


@dataclass(frozen=True)
class Upload:
    """A copy from the host to the device: its bytes, whether the host waits for it, and the line that asked for it."""

    bytes: int
    blocking: bool
    where: str


@dataclass
class Seen:
    """What happened on the device.

    Attributes:
        waits: the operations that made the host wait, with the line that asked for them.
        uploads: copies to the device.
        launches: kernels by operation; one that needs several counts once.
        convolutions: type of the input, and whether it was channels_last.
        tried: sizes of batches for which cuDNN would have tried its kernels.
    """

    waits: list[str] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    launches: Counter[str] = field(default_factory=Counter)
    convolutions: list[tuple[torch.dtype, bool]] = field(default_factory=list)
    tried: set[int] = field(default_factory=set)

    @property
    def blocking(self) -> list[Upload]:
        """The uploads that the host waits for."""
        return [upload for upload in self.uploads if upload.blocking]


class Watch:
    """Pretends CUDA tensors while it is entered; `seen` is what they did since, or since `forget`.

    Of `Generator`s, random state and free memory of the device there are pretended ones too.
    """

    def __init__(self) -> None:
        self.seen = Seen()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.inside = False
        self.pinned: dict[int, Tensor] = {}

    def forget(self) -> None:
        """Count anew."""
        self.seen = Seen()

    @contextmanager
    def entered(self) -> Iterator["Watch"]:
        """The context."""
        with ExitStack() as stack:
            for target, name, value in self._patches():
                stack.enter_context(mock.patch.object(target, name, value))
            stack.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
            torch.backends.cudnn.benchmark = True  # as `device.choose` has it
            stack.callback(_forget_tables)
            _forget_tables()
            stack.enter_context(_Functions(self))
            stack.enter_context(_Operations(self))
            yield self

    def _patches(self) -> list[tuple[Any, str, Any]]:
        autocast, fork = torch.autocast, torch.random.fork_rng
        enabled, dtype = torch.is_autocast_enabled, torch.get_autocast_dtype
        fake_device = vars(FakeTensor)["device"].fget
        return [
            (nn.Module, "_apply", _applied),
            (graphs, "may_record", lambda network, compute: False),
            (Prefetch, "__init__", lambda prefetch, source, depth=2: setattr(prefetch, "source", source)),
            (Prefetch, "__iter__", lambda prefetch: iter(prefetch.source)),
            (torch, "autocast", lambda kind, *args, **options: autocast(_of_host(kind), *args, **options)),
            (torch, "is_autocast_enabled", lambda kind: enabled(_of_host(kind))),
            (torch, "get_autocast_dtype", lambda kind: dtype(_of_host(kind))),
            (torch, "Generator", _HostGenerator),
            (torch.random, "fork_rng", lambda devices=(): fork(devices=[])),
            (torch.cuda, "mem_get_info", lambda device=None: (64 * 2**30, 80 * 2**30)),
            (torch.cuda, "memory_reserved", lambda device=None: 0),
            (torch.cuda, "memory_allocated", lambda device=None: 0),
            (torch.cuda, "synchronize", lambda device=None: self.wait("synchronize")),
            (FakeTensor, "device", property(lambda tensor: fake_device(tensor) if self.inside else CUDA)),
        ]

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within torch's own fake arithmetic, where a pretended tensor is the CPU's."""
        before, self.inside = self.inside, True
        try:
            with self.fake:
                yield
        finally:
            self.inside = before

    def upload(self, tensor: Tensor, non_blocking: bool) -> None:
        """Count a copy of `tensor` to the device: of pageable memory the host waits for it whatever it asked for."""
        pinned = tensor.untyped_storage().data_ptr() in self.pinned
        self.seen.uploads.append(Upload(tensor.nbytes, not (non_blocking and pinned), _where()))

    def wait(self, operation: str) -> None:
        """Count a wait for the device."""
        self.seen.waits.append(f"{operation} at {_where()}")

    def pretended(self, tensor: Tensor) -> Tensor:
        """The pretended tensor of a real one."""
        with self.computing():
            return self.fake.from_tensor(tensor.detach())

    def pin(self, tensor: Tensor) -> Tensor:
        """A copy in pretended page-locked memory."""
        copy = tensor.clone()
        self.pinned[copy.untyped_storage().data_ptr()] = copy
        return copy


def _forget_tables() -> None:
    """Headstart keeps tables by device: pretended ones are of no use to anybody else."""
    of_lines = (resampling._table, resampling._table_offsets, resampling._centres, resampling.shifts)
    for table in (*of_lines, masked.placed, sigreg._quadrature):
        table.cache_clear()


class _HostGenerator:
    """A generator of any device is one of the CPU's."""

    def __new__(cls, device: object = "cpu") -> torch.Generator:  # type: ignore[misc]
        return GENERATOR()


def _applied(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """nn.Module's own exchanges the content of a parameter, which a fake tensor does not allow: here it is another."""
    for child in module.children():
        child._apply(function)
    with torch.no_grad():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(function(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = function(buffer)
    return module


def _where() -> str:
    """The line of Headstart's or of a test's that is at work."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name != __file__ and ("/headstart/" in name or "/tests/" in name):
            return f"{name.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


def _of_host(kind: str) -> str:
    return "cpu" if kind == "cuda" else kind


def _is_cuda(device: object) -> bool:
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"


class _Functions(TorchFunctionMode):
    """Calls that name a device, before torch looks for a driver."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        match getattr(func, "__name__", ""):
            case "to" | "cuda" | "cpu" as name if isinstance(args[0], Tensor):
                return self._moved(name, func, list(args), options)
            case "pin_memory":
                return self.watch.pin(args[0])
            case "is_pinned":
                return args[0].untyped_storage().data_ptr() in self.watch.pinned
            case "numpy" if isinstance(args[0], FakeTensor):
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if _is_cuda(options.get("device")):
            return self._made(func, args, options)
        return func(*args, **options)

    def _moved(self, name: str, func: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> Any:
        tensor, watch = args[0], self.watch
        flags = iter(("non_blocking", "copy"))
        wanted: dict[str, Any] = {"device": {"cuda": CUDA, "cpu": torch.device("cpu")}.get(name)}
        for arg in args[1:]:
            match arg:
                case str() | torch.device():
                    wanted["device"] = arg
                case torch.dtype():
                    wanted["dtype"] = arg
                case Tensor():
                    wanted |= {"device": arg.device, "dtype": arg.dtype}
                case bool():
                    wanted[next(flags)] = arg
        wanted |= options
        target, non_blocking = wanted.pop("device"), wanted.pop("non_blocking", False)
        if target is None:
            return func(*args, **options)
        if _is_cuda(target) and not isinstance(tensor, FakeTensor):
            watch.upload(tensor, non_blocking)
            tensor = watch.pretended(tensor)
        elif not _is_cuda(target) and isinstance(tensor, FakeTensor):
            if not non_blocking:
                watch.wait("copy to the host")
            tensor = torch.ones(tensor.shape, dtype=tensor.dtype)
        wanted = {key: value for key, value in wanted.items() if value is not None}
        return tensor.to(**wanted) if "dtype" in wanted or "memory_format" in wanted else tensor

    def _made(self, func: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> Tensor:
        options["device"] = "cpu"
        made = func(*args, **options)
        if isinstance(made, FakeTensor):
            return made
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            self.watch.upload(made, non_blocking=False)
        elif not func.__name__.startswith("empty"):
            self.watch.seen.launches[func.__name__] += 1
        return self.watch.pretended(made).requires_grad_(made.requires_grad)


class _Operations(TorchDispatchMode):
    """Every operation, below autograd and autocast: on real tensors as it is, on pretended ones without arithmetic."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
        if self.watch.inside or not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            return func(*args, **options)
        name = func._schema.name.partition("::")[2]
        if name == "copy_" and not all(isinstance(tensor, FakeTensor) for tensor in tensors):
            return self._copied(args, options)
        self._refuse_others(name, tensors)
        self._count(func, name, args)
        if name == "_local_scalar_dense":
            return torch.ones((), dtype=args[0].dtype).item()
        if name in ("equal", "is_nonzero"):
            return False
        if name in ("nonzero", "index") and self._of_unknown_length(name, args):
            with self.watch.computing():
                if name == "nonzero":
                    return args[0].new_empty((0, args[0].ndim), dtype=torch.int64)
                return args[0].new_empty((0, *args[0].shape[args[1][0].ndim :]))
        with self.watch.computing():
            return func(*args, **options)

    @staticmethod
    def _of_unknown_length(name: str, args: Sequence[Any]) -> bool:
        """Whether how much is chosen depends on values: then the host waits for their number."""
        indices = args[1] if name in INDEXING else ()
        return name == "nonzero" or any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)

    def _copied(self, args: Sequence[Any], options: Mapping[str, Any]) -> Tensor:
        to, source = args[:2]
        non_blocking = bool(options.get("non_blocking", args[2] if len(args) > 2 else False))
        if isinstance(to, FakeTensor):
            self.watch.upload(source, non_blocking)
        elif not (non_blocking and to.untyped_storage().data_ptr() in self.watch.pinned):
            self.watch.wait("copy to the host")
        return to

    def _refuse_others(self, name: str, tensors: Sequence[Tensor]) -> None:
        """A tensor of the CPU's among the device's: a number is passed along, an index is uploaded, others fail."""
        for tensor in tensors:
            if isinstance(tensor, FakeTensor) or tensor.ndim == 0:
                continue
            if name not in INDEXING:
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, but one is on the CPU")
            self.watch.upload(tensor, non_blocking=False)

    def _count(self, func: Any, name: str, args: Sequence[Any]) -> None:
        seen = self.watch.seen
        if name in WAITING or self._of_unknown_length(name, args):
            self.watch.wait(name)
        view = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
        if not view and name not in NO_KERNEL:
            seen.launches[name] += 1
        if name in ("convolution", "conv2d"):  # the latter in inference mode
            x = args[0]
            seen.convolutions.append((x.dtype, x.is_contiguous(memory_format=torch.channels_last)))
            if torch.backends.cudnn.benchmark:
                seen.tried.add(len(x))


def pretend(thing: Any, watch: Watch) -> Any:
    """A pretended tensor for every real one in a tree of tensors."""
    return tree_map_only(Tensor, watch.pretended, thing)
