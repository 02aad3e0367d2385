"""Several runs on one GPU: pairs per second of all of them together, with and without NVIDIA's MPS.

Each is Headstart's step from given views in a process of its own, as `headstart study run --workers N` has them.
Without MPS (`nvidia-cuda-mps-control`) the kernels of several processes take turns; with it they run at once.

    python -m benchmarks workers [--workers 1 2 3] [--batch-size 256]
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from benchmarks import common
from benchmarks.step import Setting, headstart_step


@contextlib.contextmanager
def mps() -> Iterator[None]:
    """Processes that are started within are clients of a server of their own."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = {**os.environ, **own}
        subprocess.run(["nvidia-cuda-mps-control", "-d"], env=environment, check=True)
        os.environ.update(own)
        try:
            yield
        finally:
            for name in own:
                del os.environ[name]
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, env=environment, check=False)


def together(ways: Sequence[common.Way]) -> float:
    """Seconds per pair of all of them at the same time."""
    with ThreadPoolExecutor(len(ways)) as pool:
        return 1 / sum(1 / seconds for seconds in pool.map(lambda way: way(), ways))


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = common.options("workers", __doc__, rounds=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--batch-size", type=int, default=256, help="pairs of each")
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--stem", choices=("imagenet", "cifar"), default="imagenet")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(chosen.threads or max(1, common.cores() // max(chosen.workers)))
    print(common.machine(chosen.device))
    precision = "bfloat16" if chosen.device.startswith("cuda") else "auto"
    setting = Setting(chosen.batch_size, 32, chosen.backbone, chosen.stem, chosen.device, precision)
    makes = {str(number): partial(headstart_step, setting) for number in range(max(chosen.workers))}
    with contextlib.ExitStack() as stack:
        groups = {"": list(stack.enter_context(common.apart(makes)).values())}
        if chosen.device.startswith("cuda") and shutil.which("nvidia-cuda-mps-control"):
            stack.enter_context(mps())
            groups[", MPS"] = list(stack.enter_context(common.apart(makes)).values())
        else:
            print("without nvidia-cuda-mps-control, and on a CPU, there is no MPS to measure", file=sys.stderr)
        ways = {
            f"{count} process{'es' * (count > 1)}{kind}": partial(together, members[:count])
            for kind, members in groups.items()
            for count in chosen.workers
        }
        times = common.interleave(ways, chosen.rounds)
    common.table(f"{chosen.backbone}, 32 px, {chosen.batch_size} pairs each", times, "pairs")
