"""Whether a run fits the memory that is free, and in which chunks its batch does (docs/performance.md, Memory).

Comes in: a resolved config and its pictures. Goes out: the config with `contrastive.chunk` decided where it was unset
and the whole batch does not fit, and the sentence that says so; or one sentence that says what would fit, before
anything is trained. What a pair takes is counted on tensors without memory: what autograd keeps of two pairs and of
four. What is chosen is written to config.yaml, and a run that has begun keeps it.
"""

import copy
import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm

from headstart import backbones, heads
from headstart.backbones.blocks import freeze
from headstart.data import Images
from headstart.engine import attention, distributed, memory
from headstart.engine.device import Compute, processes_here
from headstart.records.config import BackboneConfig, Config, differences
from headstart.records.errors import InputError
from headstart.training import autoencoder as autoencoding
from headstart.training.step import SimCLR

GIB = 2**30
SHARE = 0.8
"""Of the free memory that a chosen chunk may fill: an allocator's gaps take some."""
FEWEST_NORMED = 16
"""Pairs of a chosen chunk at the least, where batch norm takes its statistics from the chunk."""
TRANSIENT = 3
"""The largest map exists so many times more while its layer passes forward or back."""
BATCHES_AHEAD = 4
"""Batches of frames that exist at once: two prepared, one being prepared, one in its step."""


@dataclass(frozen=True)
class Cost:
    """Bytes of a training: of each pair in its chunk, and of all that does not depend on the chunk."""

    pair: int
    fixed: int

    def of(self, pairs: int) -> int:
        """Bytes with so many pairs at once."""
        return self.fixed + pairs * self.pair


def fitted(config: Config, images: Images, compute: Compute, begun: Config | None = None) -> tuple[Config, list[str]]:
    """The config with its chunk decided, and what there is to say of it.

    Args:
        config: resolved.
        begun: of the run that the folder holds; where it is the same run, what it decided stands.

    Raises InputError where no chunk fits, or the autoencoder does not, naming what would.
    """
    settings = config.contrastive
    assert settings.batch_size is not None
    if begun is not None and _same(config, begun):
        chunk = begun.contrastive.chunk if settings.chunk is None else settings.chunk
        return replace(config, contrastive=replace(settings, chunk=chunk)), []
    free = _free(compute)
    if free is None:
        return config, []
    problems = _autoencoder_problem(config, free)
    if settings.chunk is not None or config.stages == "autoencoder":
        _refuse(problems, free)
        return config, []
    cost, normed = simclr_cost(config, images, compute)
    batch = math.ceil(settings.batch_size / distributed.world_size())
    chunk = fitting_chunk(batch, cost, free, FEWEST_NORMED if normed else 1)
    if chunk is None:
        problems.append(_simclr_problem(config, cost, min(batch, FEWEST_NORMED if normed else 1), normed))
    _refuse(problems, free)
    if chunk is None or chunk == batch:
        return config, []
    note = f"{batch} pairs in chunks of {chunk}: {cost.of(chunk) / GIB:.1f} of {free / GIB:.1f} GiB free"
    if normed:
        note += "; batch norm takes the statistics of each chunk, not of the batch (--contrastive.chunk sets it)"
    return replace(config, contrastive=replace(settings, chunk=chunk)), [note]


def check_batch(network: BackboneConfig, size: int, pictures: int, compute: Compute) -> None:
    """Raise InputError where training on so many pictures at once cannot fit, naming how many can (`--batch-size`)."""
    free = _free(compute)
    found = counted(network.name, network.stem, size, "batch", 0.0, 1, compute.dtype, _wide(compute))
    # Weights, gradients, AdamW's moments, the best epoch's weights; all but the gradients again in the checkpoint.
    cost = Cost(found.pair // 2, found.constant + 9 * found.weights)
    if free is None or cost.of(pictures) <= free:
        return
    fits = fitting_chunk(pictures, cost, free, 2)
    what_fits = f"--batch-size {fits} fits" if fits else "a smaller --backbone.name or --data.size would need less"
    raise InputError(
        f"{network.name} at {size} px needs {cost.of(pictures) / GIB:.1f} GiB for {pictures} pictures at once, but "
        f"{free / GIB:.1f} GiB of memory are free; {what_fits}"
    )


def fitting_chunk(batch: int, cost: Cost, free: int, least: int) -> int | None:
    """Pairs at once: the whole batch where it fits into `SHARE` of the free bytes, else the largest power of two that
    does, `least` at the least; None where not even those fit into all of them."""
    if cost.of(batch) <= SHARE * free:
        return batch
    least = min(least, batch)
    if cost.of(least) > free:
        return None
    fits = max(1, int((SHARE * free - cost.fixed) // cost.pair))
    return int(max(least, min(batch, 2 ** (fits.bit_length() - 1))))


def simclr_cost(config: Config, images: Images, compute: Compute) -> tuple[Cost, bool]:
    """What SimCLR takes, and whether a batch norm in it looks at the chunk."""
    settings, size, network = config.contrastive, config.data.size, config.backbone
    assert settings.batch_size is not None
    assert isinstance(size, int)
    found = counted(
        network.name,
        network.stem,
        size,
        settings.norms,
        settings.frozen_share,
        settings.passes,
        compute.dtype,
        _wide(compute),
    )
    head = heads.of_kind(backbones.num_features(network.name), config.head, torch.Generator())
    normed = found.normed or any(isinstance(module, _BatchNorm) for module in head.modules())
    weights = found.weights + 4 * sum(p.numel() for p in head.parameters())
    moments = 1 if settings.optimizer == "sgd" else 2
    # the weights, their gradients and the optimiser's moments; once more in the checkpoint that is made in memory
    copies = 2 + moments + (1 + moments) + 2 * (settings.keep == "best") + (settings.keep == "best-probe")
    frame = 3 * int(images.sizes.astype(int).prod(axis=1).mean())
    frames = BATCHES_AHEAD * frame * math.ceil(settings.batch_size / distributed.world_size())
    views = 2 * 3 * size**2 * 4
    # A GPU keeps the views of all chunks from the first pass to the second (step.py).
    kept = views * math.ceil(settings.batch_size / distributed.world_size()) if compute.device.type == "cuda" else 0
    pair = found.pair + 3 * views  # both views, Z-scored and laid out for the network
    return Cost(pair, found.constant + copies * weights + frames + kept), normed


@dataclass(frozen=True)
class Counted:
    """What a backbone takes in training, in bytes.

    Attributes:
        kept: by autograd, of each pair.
        largest: the largest map on a pair's way.
        constant: kept whatever the number of pairs.
        weights: the parameters.
        normed: whether a batch norm in it looks at the batch.
    """

    kept: int
    largest: int
    constant: int
    weights: int
    normed: bool

    @property
    def pair(self) -> int:
        """Of each pair: what is kept, and what is there only for a moment."""
        return self.kept + TRANSIENT * self.largest


@functools.lru_cache
def counted(
    name: str, stem: str, size: int, norms: str, frozen_share: float, passes: int, dtype: torch.dtype, wide: bool
) -> Counted:
    """What a backbone takes in training, from two and four pairs without content; `wide`: attention in float32."""
    backbone = copy.deepcopy(backbones.sketch(name, stem, size))
    freeze(backbone, frozen_share)
    model = SimCLR(backbone, nn.Identity(), passes, norms).train()
    largest = 0

    def look(layer: nn.Module, given: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    for layer in model.modules():
        layer.register_forward_hook(look)
    # The first backward of a process starts a thread a device, after which it can no longer be forked; the mode below
    # pretends to eight devices that are not there.
    torch.zeros((), requires_grad=True).backward()
    with FakeTensorMode():
        tensors = {
            key: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=tensor.requires_grad)
            for key, tensor in [*model.named_parameters(), *model.named_buffers()]
        }
        two, four = (_kept(model, tensors, 2 * pairs, size, dtype, wide) for pairs in (2, 4))
    kept = (four - two) // 2
    weights = sum(p.nbytes for p in backbone.parameters())
    normed = any(isinstance(module, _BatchNorm) and module.training for module in model.modules())
    return Counted(kept, largest // 4, two - 2 * kept, weights, normed)


def _wide(compute: Compute) -> bool:
    return attention.pays(compute.device, compute.dtype)


def _kept(
    model: nn.Module, tensors: dict[str, Tensor], views: int, size: int, dtype: torch.dtype, wide: bool = False
) -> int:
    """Bytes that autograd keeps of a forward pass, the weights themselves left out."""
    own = {tensor.untyped_storage()._cdata for tensor in tensors.values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    x = torch.empty(views, 3, size, size).contiguous(memory_format=torch.channels_last)
    low = torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        attention.in_float32(low) if wide else low,
    ):
        torch.func.functional_call(model, tensors, (x,))
    return sum(storage.nbytes() for storage in kept.values())


def _autoencoder_problem(config: Config, free: int) -> list[str]:
    """Weights, gradients, Adam's two moments and the best epoch's weights; once more, without the gradients, in the
    checkpoint that is made in memory."""
    settings, size = config.autoencoder, config.data.size
    assert isinstance(size, int)
    if settings.weights is not None or not config.needs_autoencoder:
        return []
    model = autoencoding.outline(config, size)
    needs = 9 * sum(p.nbytes for p in model.parameters())
    if needs <= free:
        return []
    return [
        f"the autoencoder of {model.in_features} values needs {needs / GIB:.1f} GiB (less with --autoencoder.on "
        "features or a smaller --data.size, none with --head.init random)"
    ]


def _simclr_problem(config: Config, cost: Cost, pairs: int, normed: bool) -> str:
    at_once = f"{pairs} pairs at once" if pairs > 1 else "one pair at once"
    smaller = f", or --contrastive.chunk below {pairs}" if normed and pairs > 2 else ""
    return (
        f"SimCLR of {config.backbone.name} at {config.data.size} px needs {cost.of(pairs) / GIB:.1f} GiB even with "
        f"{at_once} (less with a smaller --data.size or --backbone.name{smaller})"
    )


def _refuse(problems: list[str], free: int) -> None:
    if problems:
        raise InputError(f"{' and '.join(problems)}, but {free / GIB:.1f} GiB of memory are free")


def _free(compute: Compute) -> int | None:
    """What each process of this machine may take, the same on every one of them."""
    found = memory.free(compute.device, compute.sharers)
    if compute.device.type != "cuda":
        found = found and found // processes_here()
    return distributed.least(found)


def _same(config: Config, begun: Config) -> bool:
    """Whether a run in the folder was begun with these settings; how many pairs are at once, and epochs, aside."""
    if begun.stages == "autoencoder":
        return False  # nothing of SimCLR has begun
    settings = replace(begun.contrastive, chunk=config.contrastive.chunk, epochs=config.contrastive.epochs)
    return not differences(replace(begun, contrastive=settings), config)
