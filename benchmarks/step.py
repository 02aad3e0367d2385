"""One SimCLR step of ResNet-34 at 32 pixels, from views that are already there: Headstart's own against the others'.

Pairs per second of (a) the authors' way: two float32 passes and the broadcast loss; (b) lightly as its users run it,
and with bfloat16 and channels_last given to it; and of Headstart's step, its parts added one after the other. Last,
the share of the measured matrix-product limit: live FLOPs of the step, over its time, over the best rate of a large
product.

    python -m benchmarks step [--batch-size 256] [--backbone resnet34] [--stem imagenet] [--compile default | --profile]
"""

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import authors, common, lightly_users
from headstart.augment import SimCLRAugment
from headstart.backbones import build
from headstart.engine import live_taps
from headstart.engine.device import choose
from headstart.heads import ProjectionHead
from headstart.ntxent import nt_xent
from headstart.records.config import Config, ContrastiveConfig
from headstart.records.names import Stem
from headstart.training.feed import Batch
from headstart.training.step import SimCLR, Stepper


class GivenViews(Stepper):
    """Headstart's step with the augmentation taken out."""

    views: Tensor

    def _views(self, frames: Tensor, params: object) -> Tensor:
        return self.views


@dataclass(frozen=True)
class Setting:
    """What every way is given."""

    pairs: int
    size: int
    backbone: str
    stem: Stem
    device: str
    precision: str
    steps: int = common.STEPS

    def views(self) -> Tensor:
        """Both views of the pairs."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2 * self.pairs, 3, self.size, self.size, generator=generator).to(self.device)


def model_of(setting: Setting, taps: bool = True) -> SimCLR:
    """Headstart's network, its head's first layer frozen; with its live taps or without."""
    backbone = build(setting.backbone, stem=setting.stem)
    width = backbone.num_features
    assert isinstance(width, int)
    head = ProjectionHead(width, hidden_dim=256, output_dim=128)
    head.first.requires_grad_(False)
    model = SimCLR(live_taps.apply(backbone, setting.size) if taps else backbone, head).to(setting.device)
    return model.to(memory_format=torch.channels_last).train()


def headstart_step(setting: Setting, mode: str | None = None, graphs: bool = True, taps: bool = True) -> common.Way:
    """Seconds per pair of the real training step, its network compiled in torch.compile's `mode`.

    On a GPU the default mode is what `contrastive.compile` does.
    """
    if not graphs:
        os.environ["HEADSTART_CUDA_GRAPHS"] = "0"  # every way has a process of its own
    run = real_step(setting, mode, taps)
    if mode:
        report_compiling(f"{OURS}, {'passes recorded' if graphs else 'kernel by kernel'}", mode, run)
    return lambda: common.steady(run, setting.pairs, setting.steps)


def real_step(setting: Setting, mode: str | None = None, taps: bool = True) -> Callable[[], object]:
    """Headstart's step, ready to be called."""
    compute = choose(setting.device, setting.precision, torch.get_num_threads())
    by_setting = mode == "default" and setting.device.startswith("cuda")
    config = Config(contrastive=ContrastiveConfig(batch_size=setting.pairs, compile=by_setting))
    stepper = GivenViews(model_of(setting, taps), SimCLRAugment(setting.size), config, compute)
    stepper.views = setting.views().contiguous(memory_format=torch.channels_last)
    if mode and not by_setting:
        if setting.device == "cpu":  # traced, the loops of small_maps take many minutes
            live_taps.LiveConv2d._conv_forward = torch.compiler.disable(live_taps.LiveConv2d._conv_forward)  # type: ignore[method-assign]
        stepper.model.compile(mode=mode)
    frames = torch.empty(setting.pairs, 3, 1, 1, dtype=torch.uint8)
    augment = SimCLRAugment(setting.size)
    batch = Batch(torch.arange(setting.pairs), frames, [augment.plan(augment.draw(0, 1, 1))])
    return lambda: stepper(batch, 0.01, (0, 0))


def report_compiling(name: str, mode: str, run: Callable[[], object]) -> None:
    """Take the first two steps apart from the timed ones: they compile."""
    seconds = common.once(run) + common.once(run)
    print(f"{name}, compiled ({mode}): its first two steps take {seconds:.0f} s", flush=True)


def profile(setting: Setting) -> None:
    """Print where the time of Headstart's step goes, operation by operation."""
    run = real_step(setting)
    run()
    cuda = setting.device.startswith("cuda")
    kinds = [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, *kinds]) as seen:
        for _ in range(3):
            run()
        common.synchronize()
    order = "self_device_time_total" if cuda else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=50))


def authors_network(setting: Setting) -> nn.Module:
    """The authors' network of the setting's backbone."""
    return authors.network(setting.backbone, setting.size, stem=setting.stem).to(setting.device)


def authors_step(setting: Setting) -> common.Way:
    """Seconds per pair of the authors' way."""
    network = authors_network(setting)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
    one, two = setting.views().chunk(2)
    return lambda: common.steady(lambda: authors.step(network, optimizer, one, two), setting.pairs, setting.steps)


def lightly_step(setting: Setting, fast: bool) -> common.Way:
    """Seconds per pair of lightly's example."""
    trainer = lightly_users.Trainer(setting.device, fast, setting.backbone, setting.size, setting.stem)
    one, two = setting.views().chunk(2)
    return lambda: common.steady(lambda: trainer.step(one, two), setting.pairs, setting.steps)


def rung(
    setting: Setting, channels_last: bool = False, low: bool = False, live: bool = False, mode: str | None = None
) -> common.Way:
    """Seconds per pair of the authors' network with parts of Headstart's step, compiled in torch.compile's `mode`."""
    model, x = authors_network(setting), setting.views()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if live:
        live_taps.apply(model, setting.size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
    forward = torch.compile(model, mode=mode) if mode else model

    def run() -> None:
        with torch.autocast(setting.device, torch.bfloat16, enabled=low):
            z = forward(x)
        nt_xent(z).backward()
        optimizer.step()
        optimizer.zero_grad()

    if mode:
        report_compiling("plain", mode, run)
    return lambda: common.steady(run, setting.pairs, setting.steps)


OURS = "Headstart's step (frozen first layer, kept memory)"


def main(argv: list[str]) -> None:
    """Print the table and the share of the limit."""
    parser = common.options("step", __doc__, rounds=5)
    parser.add_argument("--batch-size", type=int, default=256, help="pairs")
    parser.add_argument("--steps", type=int, default=common.STEPS, help="of each way in a round, on a GPU")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--stem", choices=("imagenet", "cifar"), default="imagenet")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--only-headstart", action="store_true")
    modes = ("default", "reduce-overhead", "max-autotune")
    parser.add_argument("--compile", choices=modes, help="the same compiled, in this mode of torch.compile")
    parser.add_argument("--profile", action="store_true", help="only where the time of Headstart's step goes")
    chosen = parser.parse_args(argv)
    setting = Setting(
        chosen.batch_size, chosen.size, chosen.backbone, chosen.stem, chosen.device, chosen.precision, chosen.steps
    )
    torch.set_num_threads(chosen.threads or common.cores())
    print(common.machine(chosen.device))
    if chosen.profile:
        return profile(setting)
    low = chosen.precision == "bfloat16"
    others = {
        "authors' way": partial(authors_step, setting),
        "lightly": partial(lightly_step, setting, False),
        "lightly, bfloat16, channels_last": partial(lightly_step, setting, True),
        "one pass, Headstart's loss": partial(rung, setting),
        "+ channels_last": partial(rung, setting, True),
        f"+ {chosen.precision}": partial(rung, setting, True, low),
        "+ live taps, small maps": partial(rung, setting, True, low, True),
    }
    makes = {**({} if chosen.only_headstart else others), OURS: partial(headstart_step, setting)}
    if chosen.device.startswith("cuda"):
        makes["Headstart's step, kernel by kernel"] = partial(headstart_step, setting, graphs=False)
        makes["Headstart's step, without live taps"] = partial(headstart_step, setting, taps=False)
    if mode := chosen.compile:
        makes[f"+ {chosen.precision}, compiled"] = partial(rung, setting, True, low, False, mode)
        makes["Headstart's step, compiled"] = partial(headstart_step, setting, mode, graphs=False)
        if chosen.device.startswith("cuda"):
            makes["Headstart's step, compiled, its passes recorded"] = partial(headstart_step, setting, mode)
    with common.apart(makes) as ways:
        times = common.interleave(ways, chosen.rounds)
    common.table(f"{chosen.backbone}, {chosen.size} px, {chosen.batch_size} pairs", times, "pairs")
    model = model_of(setting)
    live, full = (common.step_flops(model.backbone, model.head, chosen.size, 2, live) for live in (True, False))
    rate = live / statistics.median(times[OURS])
    limit = common.peak(torch.bfloat16 if low else torch.float32, chosen.device)
    print(
        f"\nA pair takes {full / 1e9:.3g} GFLOP, of which {live / 1e9:.3g} are live; Headstart computes "
        f"{rate / 1e9:,.0f} live GFLOP/s, {rate / limit:.0%} of the measured {chosen.precision} limit of "
        f"{limit / 1e9:,.0f}"
    )
