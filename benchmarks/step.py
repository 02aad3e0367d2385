"""One SimCLR step of ResNet-34 at 32 pixels, from views that are already there: Headstart's own against the others'.

Pairs per second of (a) the authors' way: two float32 passes and the broadcast loss; (b) lightly as its users run it,
and with bfloat16 and channels_last given to it; and of Headstart's step, its parts added one after the other. Last,
the share of the measured matrix-product limit: live FLOPs of the step, over its time, over the best rate of a large
product.

    python -m benchmarks step [--rounds 3] [--batch-size 256] [--backbone resnet34] [--stem imagenet]
"""

import copy
import functools
import statistics

import torch
from torch import Tensor, nn

from benchmarks import authors, common, lightly_users
from headstart import live_taps
from headstart.augment import SimCLRAugment
from headstart.backbones import build
from headstart.config import BackboneConfig, Config, ContrastiveConfig
from headstart.contrastive import Batch, SimCLR, Stepper
from headstart.engine.device import Compute, choose
from headstart.heads import ProjectionHead
from headstart.ntxent import nt_xent


class GivenViews(Stepper):
    """Headstart's step with the augmentation taken out."""

    views: Tensor

    def _views(self, frames: Tensor, params: object) -> Tensor:
        return self.views


def headstart_step(config: Config, views: Tensor, compute: Compute) -> tuple[common.Way, SimCLR]:
    """Seconds per pair of the real training step."""
    size, pairs = views.shape[-1], len(views) // 2
    backbone = build(config.backbone.name, stem=config.backbone.stem)
    width = backbone.num_features
    assert isinstance(width, int)
    head = ProjectionHead(width, hidden_dim=256, output_dim=128)
    head.first.requires_grad_(False)
    model = SimCLR(live_taps.apply(backbone, size), head)
    model = model.to(compute.device).to(memory_format=torch.channels_last).train()
    stepper = GivenViews(model, SimCLRAugment(size), config, compute)
    stepper.views = views.to(compute.device).contiguous(memory_format=torch.channels_last)
    frames = torch.empty(pairs, 3, 1, 1, dtype=torch.uint8)
    batch = Batch(torch.arange(pairs), frames, SimCLRAugment(size).draw(0, 1, 1))
    return lambda: common.once(lambda: stepper(batch, 0.01, (0, 0)), pairs), model


def ladder(views: Tensor, compute: Compute, network: nn.Module) -> dict[str, common.Way]:
    """The authors' network with the parts of Headstart's step added one after the other."""
    pairs = len(views) // 2

    def way(channels_last: bool, autocast: bool, live: bool) -> common.Way:
        model = copy.deepcopy(network)
        x = views
        if channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            x = x.contiguous(memory_format=torch.channels_last)
        if live:
            live_taps.apply(model, views.shape[-1])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)

        def run() -> None:
            with torch.autocast(compute.device.type, torch.bfloat16, enabled=autocast):
                z = model(x)
            nt_xent(z).backward()
            optimizer.step()
            optimizer.zero_grad()

        return lambda: common.once(run, pairs)

    low = compute.dtype == torch.bfloat16
    return {
        "one pass, Headstart's loss": way(False, False, False),
        "+ channels_last": way(True, False, False),
        f"+ {compute.precision}": way(True, low, False),
        "+ live taps": way(True, low, True),
    }


def main(argv: list[str]) -> None:
    """Print the table and the share of the limit."""
    parser = common.options("step", __doc__, rounds=3)
    parser.add_argument("--batch-size", type=int, default=256, help="pairs")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--stem", choices=("imagenet", "cifar"), default="imagenet")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--only-headstart", action="store_true")
    chosen = parser.parse_args(argv)
    compute = choose(chosen.device, chosen.precision, chosen.threads)
    print(common.machine())
    views = torch.randn(2 * chosen.batch_size, 3, chosen.size, chosen.size, device=chosen.device)
    one, two = views.chunk(2)
    config = Config(
        backbone=BackboneConfig(name=chosen.backbone, stem=chosen.stem),
        contrastive=ContrastiveConfig(batch_size=chosen.batch_size),
    )
    ours, model = headstart_step(config, views, compute)
    ways: dict[str, common.Way] = {}
    if not chosen.only_headstart:
        network = authors.network().to(chosen.device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
        ways["authors' way"] = lambda: common.once(
            lambda: authors.step(network, optimizer, one, two), chosen.batch_size
        )
        for fast in (False, True):
            trainer = lightly_users.Trainer(chosen.device, fast)
            work = functools.partial(trainer.step, one, two)
            name = "lightly, bfloat16, channels_last" if fast else "lightly"
            ways[name] = functools.partial(common.once, work, chosen.batch_size)
        ways |= ladder(views, compute, authors.network().to(chosen.device))
    ways["Headstart's step (frozen first head layer)"] = ours
    times = common.interleave(ways, chosen.rounds)
    common.table(f"{chosen.backbone}, {chosen.size} px, {chosen.batch_size} pairs", times, "pairs")
    live, full = (common.step_flops(model.backbone, model.head, chosen.size, 2, live) for live in (True, False))
    rate = live / statistics.median(times["Headstart's step (frozen first head layer)"])
    limit = common.peak(compute.dtype, chosen.device)
    print(
        f"\nA pair takes {full / 1e9:.3g} GFLOP, of which {live / 1e9:.3g} are live; Headstart computes "
        f"{rate / 1e9:,.0f} live GFLOP/s, {rate / limit:.0%} of the measured {compute.precision} limit of "
        f"{limit / 1e9:,.0f}"
    )
