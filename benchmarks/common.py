"""What the benchmarks share: interleaved timing, tables, the machine's description and its matrix-product limit.

Ways that are compared take turns in one process, so that a disturbance of the machine meets them all; a table shows the
median, the smallest and largest round, and the ratio of the medians.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import nn

from headstart.data.decode import FORMATS
from headstart.engine import live_taps
from headstart.engine.device import named

STEPS = 20
"""Steps between two waits for a GPU."""
Way = Callable[[], float]
"""Does its work once and returns how long one unit of it took, in seconds."""


def options(name: str, doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"benchmarks {name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds of each way (default {rounds})")
    parser.add_argument("--threads", type=int, help="CPU threads of each way (default: all cores)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def once(function: Callable[[], object], units: int = 1) -> float:
    """Seconds per unit of one call, waiting for the device."""
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return (time.perf_counter() - start) / units


def steady(step: Callable[[], object], units: int = 1, steps: int = STEPS) -> float:
    """Seconds per unit of one step among many: a GPU is given `steps` without a wait in between, as a training gives
    them; a CPU one."""
    steps = steps if torch.cuda.is_initialized() else 1
    return once(lambda: [step() for _ in range(steps)], units * steps)


def synchronize() -> None:
    """Wait until a GPU that this process computes on has done what was asked."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interleave(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """One untimed round of every way, then `rounds` timed ones, the ways taking turns. Seconds per unit."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            seconds = way()
            if number:
                times[name].append(seconds)
    return times


@contextlib.contextmanager
def apart(ways: Mapping[str, Callable[[], Way]]) -> Iterator[dict[str, Way]]:
    """Each way in a process of its own, made there: what one sets for its process (an allocator, threads) is its own.

    They still take turns, with as many threads each as this process has. `ways` must be picklable: functions of a
    module, or `functools.partial` of them.
    """
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        remote: dict[str, Way] = {}
        for name, make in ways.items():
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, make, torch.get_num_threads()))
            process.start()
            there.close()  # so that a process that dies is noticed
            stack.callback(process.join)
            stack.callback(here.send, False)
            remote[name] = functools.partial(_ask, here)
        yield remote


def _ask(connection: Connection) -> float:
    connection.send(True)
    seconds: float = connection.recv()
    return seconds


def _serve(connection: Connection, make: Callable[[], Way], threads: int) -> None:
    torch.set_num_threads(threads)
    way = make()
    while connection.recv():
        connection.send(way())


def table(title: str, times: dict[str, list[float]], unit: str, against: str | None = None) -> dict[str, float]:
    """Print units per second (median, range) and how many times faster than `against` (default: the first way).

    Returns the ratios.
    """
    reference = statistics.median(times[against or next(iter(times))])
    width = max(len(name) for name in times)
    print(f"\n{title}\n")
    print(f"| {'':{width}} | {unit}/s | slowest to fastest round | ratio |")
    print(f"| {'-' * width} | ---: | ---: | ---: |")
    ratios = {}
    for name, seconds in times.items():
        ratios[name] = reference / statistics.median(seconds)
        spread = f"{number(1 / max(seconds))} to {number(1 / min(seconds))}"
        print(
            f"| {name:{width}} | {number(1 / statistics.median(seconds))} | {spread} | {ratios[name]:.2f} |", flush=True
        )
    return ratios


def number(value: float) -> str:
    """Three or more significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine(device: str = "auto") -> str:
    """The line that belongs beside every figure that was measured on that device."""
    chosen = named(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else _cpu_name()
    return (
        f"{name}, {cores()} cores, {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    )


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def pictures(folder: str | None, count: int, size: int = 32) -> Iterator[Path]:
    """A folder of `count` JPEG files for the duration: of the given folder, as they are; else training pictures of
    $HEADSTART_DATA/data/cifar10.tar.gz (without it, smooth random ones), at another size enlarged."""
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "train" / "all"
        target.mkdir(parents=True)
        if folder:
            found = sorted(Path(folder).rglob("*.jpg"))
            if len(found) < count:
                sys.exit(f"{folder} has {len(found)} .jpg files; {count} are needed")
            for number, file in enumerate(found[:: len(found) // count][:count]):
                (target / f"{number:06}.jpg").write_bytes(file.read_bytes())
            yield target.parent
            return
        for number, content in enumerate(_jpegs(count)):
            if size != 32:
                buffer = io.BytesIO()
                picture = Image.open(io.BytesIO(content), formats=FORMATS)
                picture.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG")
                content = buffer.getvalue()
            (target / f"{number:06}.jpg").write_bytes(content)
        yield target.parent


def _jpegs(count: int) -> Iterator[bytes]:
    archive = Path(os.environ.get("HEADSTART_DATA", "")) / "data" / "cifar10.tar.gz"
    if archive.is_file():
        with tarfile.open(archive) as tar:
            found = 0
            for member in tar:
                if member.isfile() and "/train/" in f"/{member.name}" and member.name.endswith((".jpg", ".jpeg")):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()
                    found += 1
                    if found == count:
                        return
    else:
        for seed in range(count):
            coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
            smooth = nn.functional.interpolate(coarse, (32, 32), mode="bicubic")[0].clamp(0, 1)
            yield bytes(torchvision.io.encode_jpeg((smooth * 255).to(torch.uint8), quality=90).tolist())


def peak_memory() -> float:
    """MB: the most this process has held so far. Not getrusage's count, which starts with the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1e3
    raise RuntimeError("memory can be measured on Linux only")


def peak(dtype: torch.dtype, device: str) -> float:
    """The best measured rate of a large matrix product, FLOP/s: the limit of any step that consists of them."""
    side = 8192 if device.startswith("cuda") else 2048
    a, b = torch.randn(2, side, side, device=device).to(dtype).unbind()
    return 2 * side**3 / min(once(lambda: a @ b) for _ in range(30))


def step_flops(backbone: nn.Module, head: nn.Module, size: int, views: int, live: bool = True) -> float:
    """Floating-point operations of a training step: forward, gradients of inputs and of weights of every
    convolution and linear layer. `live` leaves out the taps that only see padding and that LiveConv2d skips; a frozen
    layer has no gradient of its weights, the first none of its inputs."""
    total, first = 0.0, True

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal total, first
        if isinstance(module, nn.Conv2d):
            products = live_taps.products(module, inputs[0].shape[2], inputs[0].shape[3], live)
        else:
            assert isinstance(module, nn.Linear)
            products = module.in_features * module.out_features
        total += 2 * products * (1 + (not first) + module.weight.requires_grad)
        first = False

    network = nn.Sequential(backbone, head)
    hooks = [m.register_forward_pre_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size, device=next(network.parameters()).device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return total * views
