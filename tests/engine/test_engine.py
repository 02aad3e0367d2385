"""Randomness as a function, equal files from equal weights, prefetching, slices of a global batch."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.engine import distributed, randomness, weights
from headstart.engine.device import choose, enough_memory, packed, tuned, unpacked
from headstart.engine.prefetch import Prefetch
from headstart.records.errors import InputError, RunError
from headstart.records.seal import SEAL, seal_of


def test_draws_follow_from_their_position_alone() -> None:
    before = torch.random.get_rng_state()
    one = torch.rand(3, generator=randomness.generator(0, "augment", 1, 2))
    assert torch.equal(one, torch.rand(3, generator=randomness.generator(0, "augment", 1, 2)))
    others: list[Any] = [(1, "augment", 1, 2), (0, "order", 1, 2), (0, "augment", 2, 1), (0, "augment", 12)]
    for other in others:
        assert not torch.equal(one, torch.rand(3, generator=randomness.generator(*other)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert randomness.order(0, "order", 0, 10).sort().values.tolist() == list(range(10))


def test_equal_weights_give_equal_bytes_whatever_the_metadatas_order(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(4.0), "a": torch.zeros(2, 3).to(memory_format=torch.contiguous_format)}
    about = {f"key{i}": i for i in range(20)}
    assert weights.to_bytes(tensors, about) == weights.to_bytes(tensors, dict(reversed(about.items())))
    file_name = tmp_path / "w.safetensors"
    weights.save(file_name, tensors, **about)
    from safetensors import safe_open

    with safe_open(file_name, "pt") as file:
        assert file.metadata() == {name: str(value) for name, value in about.items()} | {SEAL: seal_of(file_name)}
        assert torch.equal(file.get_tensor("b"), tensors["b"])


@given(st.integers(0, 500), st.integers(1, 16))
def test_slices_share_a_batch_without_gap_or_overlap(n: int, ranks: int) -> None:
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "world_size", lambda: ranks)
        for rank in range(ranks):
            patch.setattr(distributed, "rank", lambda rank=rank: rank)
            parts.append(list(range(n))[distributed.slice_of(n)])
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_thread_that_prefetches_leaves_the_others_their_threads() -> None:
    code = (
        "import torch; from headstart.engine.device import choose; from headstart.engine.prefetch import Prefetch\n"
        "choose('cpu', 'float32', threads=2); list(Prefetch(range(3))); print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "2\n", done.stderr


def test_prefetch_keeps_order_carries_errors_and_stops() -> None:
    assert list(Prefetch(range(10))) == list(range(10))

    def broken() -> object:
        yield 1
        raise ValueError("broken picture")

    with pytest.raises(ValueError, match="broken picture"):
        list(Prefetch(broken()))  # type: ignore[arg-type]
    before = threading.active_count()
    for item in Prefetch(iter(int, 1)):
        assert item == 0
        break
    until = time.monotonic() + 600
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_devices_that_are_not_there_are_named() -> None:
    with pytest.raises(InputError, match="cuda:99"):
        choose("cuda:99")
    assert choose("cpu", "float32", 1).dtype == torch.float32
    assert choose("cpu", "bfloat16", 1).precision == "bfloat16"


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:1"])
def test_a_gpu_is_chosen_with_its_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    compute = choose(name, threads=1)
    assert [compute.device] == chosen == [torch.device("cuda", 1 if name == "cuda:1" else 0)]
    assert compute.precision == "bfloat16"


def test_a_build_of_torch_without_onednn_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operators are not there to be asked."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    monkeypatch.setattr("headstart.engine.device._cpu_multiplies_bfloat16", lambda: True)
    assert choose("cpu", threads=1).precision == "float32"


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_memory_that_ran_out_is_told_however_a_library_says_it(said: str) -> None:
    with (
        pytest.raises(RunError, match="out of memory; a smaller batch"),
        enough_memory(torch.device("cuda", 0), "a smaller batch"),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="illegal"), enough_memory(torch.device("cuda", 0), "a smaller batch"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_tensors_packed_for_one_copy_are_themselves_again() -> None:
    tensors = [torch.arange(5), torch.rand(3, 7), torch.rand(2, 4).mT, torch.zeros(0, 2), torch.tensor([True, False])]
    whole = packed(tensors)
    assert whole.dtype == torch.uint8
    for tensor, again in zip(tensors, unpacked(whole, tensors), strict=True):
        assert tensor.dtype == again.dtype
        assert torch.equal(tensor, again)


@pytest.mark.parametrize("before", [True, False])
def test_kernels_are_tried_where_they_were_and_when_it_pays(before: bool) -> None:
    cudnn = torch.backends.cudnn
    was, cudnn.benchmark = cudnn.benchmark, before
    try:
        with tuned(True):
            assert cudnn.benchmark is before
        with tuned(False):
            assert cudnn.benchmark is False
        assert cudnn.benchmark is before
    finally:
        cudnn.benchmark = was
