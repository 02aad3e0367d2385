"""A network's two passes as CUDA graphs: a launch for each, in place of one for every kernel.

Comes in: a network in training and views such as every step has. Goes out: the same loss and gradients, of which only
the loss itself is launched kernel by kernel, so that any objective goes between the passes. What is recorded is the
kernels of one step: a network that decides in Python what to compute must not be recorded (`may_record`).
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from headstart.engine import distributed, memory, progress
from headstart.engine.device import Compute

OURS = {"torch", "torchvision", "timm", "headstart"}
"""Packages whose modules draw and branch on the device alone."""
ROOM = 1.25
"""Recorded passes keep the memory of a step for themselves, beside that of all that is not recorded."""
MODE = "thread_local"
"""The prefetch thread goes on while a pass is recorded."""


def recorded(network: nn.Module, views: Tensor, compute: Compute) -> "Passes | None":
    """The passes of `network`, of which one at least has been taken; None where they may not or cannot be recorded."""
    if not may_record(network, compute):
        return None
    try:
        with _undone_where_it_fails(compute.device):
            return Passes(network, views, compute)
    except RuntimeError as error:  # something waits for the device, memory ran out, or somebody keeps a step's graph
        progress.say(f"every kernel of a step is launched by itself, which is slower: {str(error).splitlines()[0]}")
        return None


def may_record(network: nn.Module, compute: Compute) -> bool:
    """Whether one process computes on a GPU with room for it, and of `network` all modules are known.

    `HEADSTART_CUDA_GRAPHS=0` in the environment says no.
    """
    if compute.device.type != "cuda" or distributed.world_size() > 1 or not torch.cuda.is_available():
        return False
    if os.environ.get("HEADSTART_CUDA_GRAPHS") == "0":
        return False
    if not all(type(module).__module__.partition(".")[0] in OURS for module in network.modules()):
        return False
    room = memory.free(compute.device, compute.sharers)
    return room is not None and ROOM * torch.cuda.max_memory_allocated(compute.device) < room


@contextlib.contextmanager
def _undone_where_it_fails(device: torch.device) -> Iterator[None]:
    """A recording that fails keeps the current stream, and the device's random numbers wait for its end for ever: the
    stream is given back, and they begin anew at the seed."""
    stream = torch.cuda.current_stream(device)
    try:
        yield
    except RuntimeError:
        torch.cuda.set_stream(stream)
        fresh = torch.Generator(device).manual_seed(torch.initial_seed())
        torch.cuda.default_generators[stream.device_index].graphsafe_set_state(fresh.graphsafe_get_state())
        raise


class Passes:
    """The recorded passes.

    Args:
        network: (n, 3, S, S) -> h, z; the shape and layout of `views`, the parameters that need gradients and the
            training mode are those of every step to come.
    """

    def __init__(self, network: nn.Module, views: Tensor, compute: Compute) -> None:
        self.views = views.clone()
        self.moved = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forward, capture_error_mode=MODE), compute.autocast():
            h, z = network(self.views)
        self.slope = torch.empty_like(z)
        with torch.cuda.graph(self.backward, pool=self.forward.pool(), capture_error_mode=MODE):
            gradients = torch.autograd.grad(z, self.moved, self.slope, allow_unused=True)
            self.gradients = [
                None if gradient is None else _laid_out(gradient, parameter)
                for gradient, parameter in zip(gradients, self.moved, strict=True)
            ]
        self.h, self.z = h.detach(), z.detach()

    def __call__(self, views: Tensor, loss_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The loss () of z and h (n, F), both detached; the parameters' gradients are set."""
        self.views.copy_(views)
        self.forward.replay()
        z = self.z.detach().requires_grad_()
        loss = loss_of(z)
        self.slope.copy_(torch.autograd.grad(loss, z)[0])
        self.backward.replay()
        for parameter, gradient in zip(self.moved, self.gradients, strict=True):
            parameter.grad = gradient
        return loss.detach(), self.h.clone()


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """In the parameter's layout, as an optimiser of one kernel wants it."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
