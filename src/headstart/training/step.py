"""One optimiser step of SimCLR: forward, NT-Xent over the whole batch, backward, update (paper 3.1).

Comes in: a batch with its draws and a learning rate. Goes out: the loss and h, and the weights one step on. The batch
may lie on several processes, and be passed through the network in chunks.
"""

import contextlib
import inspect
import itertools
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from headstart.augment import SimCLRAugment, ViewPlan
from headstart.engine import distributed, graphs, progress
from headstart.engine.device import Compute
from headstart.engine.randomness import generator
from headstart.records.config import Config
from headstart.records.names import OBJECTIVES
from headstart.training import optimizers
from headstart.training.feed import Batch


class SimCLR(nn.Module):
    """g after f (paper Eq. 1), with batch norm over both views at once or one pass a view.

    `norms="given"`: the backbone's batch norm always uses its running statistics, which then never change.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, passes: int = 1, norms: str = "batch") -> None:
        super().__init__()
        self.backbone, self.head, self.passes, self.norms = backbone, head, passes, norms

    def train(self, mode: bool = True) -> "SimCLR":
        """As nn.Module, but for the backbone's batch norm with `norms="given"`."""
        super().train(mode)
        if self.norms == "given":
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """views (2n, 3, S, S) -> h (2n, num_features), z (2n, output_dim)."""
        h = torch.cat([self.backbone(v) for v in views.chunk(self.passes)])
        return h, self.head(h)


RECORD_AFTER = 2
"""Steps after which a GPU's passes are recorded: in them the library has found its kernels."""

OWN_BUFFERS: dict[str, Any] = {  # each rank keeps its batch norm's running statistics; torch 2.15 renamed the option
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else "broadcast_buffers": False
}


class Stepper:
    """One optimiser step: forward, NT-Xent over the whole batch, backward, update.

    All batches have the same number of pictures. `release` lets a frozen first layer train from then on. It gets an
    optimiser group of its own, so that the order of the groups, and with it a resumed run, does not depend on when that
    happened. `network` is what `contrastive.compile` compiles, for whole batches: those of validation have other sizes,
    and a chunk's two passes must draw the same dropout.
    """

    def __init__(self, model: SimCLR, augment: SimCLRAugment, config: Config, compute: Compute) -> None:
        self.model, self.augment, self.config, self.compute = model, augment, config, compute
        self.optimizer = optimizers.build_for(model.backbone, model.head, config.contrastive)
        self._begin()

    def _begin(self) -> None:
        self.parallel = (
            self.model if distributed.world_size() == 1 else DistributedDataParallel(self.model, **OWN_BUFFERS)
        )
        self.network = compiled(self.parallel, self.config, self.compute)
        self.taken = 0
        self.recorded: graphs.Passes | None = None

    def release(self) -> None:
        """Let the head's first layer train."""
        first = self.model.head.first
        assert isinstance(first, nn.Linear)
        first.requires_grad_(True)
        rate = self.optimizer.param_groups[-1]["rate"]  # the head's
        for group in optimizers.groups(first.named_parameters(), self.config.contrastive):
            self.optimizer.add_param_group({**group, "rate": rate})
        self._begin()

    def __call__(self, batch: Batch, lr: float, position: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Take one step at learning rate `lr`; returns the detached loss () and h (2n, num_features)."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self.optimizer.zero_grad(set_to_none=True)
        step = self._whole if len(batch.plans) == 1 else self._chunked
        with stochastic_layers(self.compute.device, self.config.seed, *position):
            loss, h = step(batch, position)
        self.optimizer.step()
        return loss, h

    def _whole(self, batch: Batch, position: tuple[int, int]) -> tuple[Tensor, Tensor]:
        views = self._views(batch.frames, batch.plans[0])
        if self.taken == RECORD_AFTER:
            self.recorded = graphs.recorded(self.network, views, self.compute)
        self.taken += 1
        if self.recorded is not None:
            return self.recorded(views, lambda z: loss_of(z, self.config, position))
        try:
            return self._passed(views, position)
        except Exception as error:  # a compiler fails in many ways, all of them in the first step's passes
            if self.network is self.parallel or self.taken > 1:
                raise
            cause = getattr(error, "inner_exception", error)
            words = str(cause).strip().splitlines() or [type(cause).__name__]
            progress.say(f"the network is not compiled, which is slower: {words[0]}")
        self.network = self.parallel
        self.optimizer.zero_grad(set_to_none=True)
        return self._passed(views, position)

    def _passed(self, views: Tensor, position: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Both passes, kernel by kernel."""
        with self.compute.autocast():
            h, z = self.network(views)
        loss = loss_of(z, self.config, position)
        loss.backward()
        return loss.detach(), h.detach()

    def _chunked(self, batch: Batch, position: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """GradCache (Gao et al. 2021): projections chunk by chunk without a graph, the loss and its gradient at them
        over the whole batch, then each chunk again with a graph, fed with its part of that gradient.

        Exact for networks without batch norm; with it, each chunk is normalised by its own statistics.
        """
        n = len(batch.frames)
        ends = itertools.accumulate((len(plan) // 2 for plan in batch.plans), initial=0)
        chunks = [slice(start, stop) for start, stop in itertools.pairwise(ends)]
        plans = {rows.start: plan for rows, plan in zip(chunks, batch.plans, strict=True)}
        kept: dict[int, Tensor] = {}

        def views_of(rows: slice) -> Tensor:
            if rows.start in kept:
                return kept.pop(rows.start)
            views = self._views(batch.frames[rows], plans[rows.start])
            if self.compute.device.type == "cuda":  # a GPU has room for them; they are counted in footprint.py
                kept[rows.start] = views
            return views

        def forward(rows: slice, model: nn.Module) -> tuple[Tensor, Tensor]:
            views = views_of(rows)
            with self.compute.autocast():
                return model(views)

        with torch.no_grad(), running_statistics_kept(self.model):
            parts = [forward(rows, self.model) for rows in chunks]
        h, z = (pairs_first(list(tensors)) for tensors in zip(*parts, strict=True))
        z.requires_grad_(True)
        loss = loss_of(z, self.config, position)
        (gradient,) = torch.autograd.grad(loss, z)
        torch.manual_seed(torch.initial_seed())  # dropout draws the same masks again
        for rows in chunks:
            last = rows is chunks[-1]
            with contextlib.nullcontext() if last else self._without_sync():
                part = forward(rows, self.parallel)[1]
                both = torch.cat([gradient[:n][rows], gradient[n:][rows]])
                part.backward(both.to(part.dtype))
        return loss.detach(), h

    def _without_sync(self) -> contextlib.AbstractContextManager[object]:
        if isinstance(self.parallel, DistributedDataParallel):
            return self.parallel.no_sync()
        return contextlib.nullcontext()

    def _views(self, frames: Tensor, plan: ViewPlan) -> Tensor:
        return self.augment.apply(frames, plan).contiguous(memory_format=torch.channels_last)


def compiled(network: nn.Module, config: Config, compute: Compute) -> nn.Module:
    """The network through torch.compile where `contrastive.compile` asks for it; elsewhere than on a GPU as it is.

    Random numbers stay those of the network as it is, so that dropout and stochastic depth do.
    """
    if not config.contrastive.compile or compute.device.type != "cuda":
        return network
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")  # live_taps', of sizes alone
    torch.compiler.reset()  # of an earlier run's: torch would compile this one for sizes of any kind, and the ninth not
    return torch.compile(network, dynamic=False, options={"fallback_random": True})  # type: ignore[return-value]


def loss_of(z: Tensor, config: Config, position: tuple[int, ...], group: dist.ProcessGroup | None = None) -> Tensor:
    """`contrastive.objective`; what it draws follows from `position`.

    NaN on all ranks of the group where z (2n, d) is not finite on one: then the training has diverged, and nobody's
    input was bad.
    """
    if z.device.type == "cpu" and distributed.any_rank(not bool(z.isfinite().all()), group):
        return z.sum() * math.nan
    objective = OBJECTIVES.known(config.contrastive.objective).made()
    loss: Tensor = objective(z, config, group, generator(config.seed, "objective", *position))
    return loss


def pairs_first(chunks: list[Tensor]) -> Tensor:
    """Chunks of 2c rows, each first and second views -> all first views, then all second views."""
    first, second = zip(*(chunk.chunk(2) for chunk in chunks), strict=True)
    return torch.cat([*first, *second])


@contextlib.contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norm normalises as in training but leaves its running statistics to the second pass."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextlib.contextmanager
def stochastic_layers(device: torch.device, seed: int, *position: int) -> Iterator[None]:
    """Dropout and stochastic depth draw from torch's global generator; in here it is a function of the position too."""
    key = generator(seed, "stochastic-layers", *position, distributed.rank()).initial_seed()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(key)
        yield


def synchronise_norms(model: SimCLR, device: torch.device) -> None:
    """Several GPUs normalise by the statistics of the whole batch; several CPU processes each by their own part's."""
    if distributed.world_size() == 1:
        return
    if device.type == "cuda":
        synchronised(model)
    elif distributed.rank() == 0 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        progress.say(
            f"batch norm: each of {distributed.world_size()} CPU processes uses the statistics of its own part"
        )


def synchronised(model: nn.Module) -> nn.Module:
    """The same network, whose batch norm takes its statistics over all processes.

    timm's own layers of batch norm and activation in one keep the activation, which torch's conversion would drop.
    """
    converted: nn.Module = sys.modules.get("timm.layers", nn.SyncBatchNorm).convert_sync_batchnorm(model)
    return converted
