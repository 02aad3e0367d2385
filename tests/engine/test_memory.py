"""What is free, read from the files in which Linux shows it, made up here."""

from pathlib import Path

import pytest
import torch

from headstart.engine import memory
from headstart.training import contrastive, footprint

resource = pytest.importorskip("resource", reason="no such limits here")

CPU = torch.device("cpu")
GIB = 2**30


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """8 GiB available to a process of 1 GiB without any limit."""
    write(tmp_path / "proc" / "meminfo", f"MemTotal: 99 kB\nMemAvailable:    {8 * 2**20} kB\nHugePages_Total:  0\n")
    write(tmp_path / "proc" / "self" / "status", f"Name:\tpython\nVmSize:\t{2**20} kB\nVmData:\t{2**19} kB\n")
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))
    return tmp_path


def free(machine: Path, sharers: int = 1) -> int | None:
    return memory.free(CPU, sharers, machine / "proc", machine / "groups")


def test_without_limits_what_the_machine_has_is_free(machine: Path) -> None:
    assert free(machine) == 8 * GIB


def test_a_system_that_says_nothing_is_not_guessed_at(machine: Path) -> None:
    assert memory.free(CPU, 1, machine / "nothing", machine / "groups") is None


def test_a_group_of_version_2_and_those_around_it_count(machine: Path) -> None:
    write(machine / "proc" / "self" / "cgroup", "0::/user/run.scope\n")
    inner, outer = machine / "groups" / "user" / "run.scope", machine / "groups" / "user"
    write(inner / "memory.max", "max\n")
    write(inner / "memory.current", f"{GIB}\n")
    assert free(machine) == 8 * GIB
    write(inner / "memory.max", f"{4 * GIB}\n")
    assert free(machine) == 3 * GIB
    write(inner / "memory.stat", f"anon 7\ninactive_file {GIB // 2}\n")  # pages that the system gives up first
    assert free(machine) == 3.5 * GIB
    write(outer / "memory.max", f"{2 * GIB}\n")
    write(outer / "memory.current", f"{3 * GIB}\n")
    assert free(machine) == 0


def test_a_group_of_version_1_counts(machine: Path) -> None:
    write(machine / "proc" / "self" / "cgroup", "8:pids:/\n4:cpu,memory:/box\n0::/\n")
    box = machine / "groups" / "memory" / "box"
    write(box / "memory.limit_in_bytes", f"{4 * GIB}\n")
    write(box / "memory.usage_in_bytes", f"{2 * GIB}\n")
    write(box / "memory.stat", f"inactive_file 5\ntotal_inactive_file {GIB}\n")
    assert free(machine) == 3 * GIB


def test_a_container_that_shows_its_own_group_at_the_root_counts(machine: Path) -> None:
    write(machine / "proc" / "self" / "cgroup", "0::/../../outside/of/here\n")
    write(machine / "groups" / "memory.max", f"{4 * GIB}\n")
    write(machine / "groups" / "memory.current", f"{GIB}\n")
    assert free(machine) == 3 * GIB


def test_what_ulimit_allows_counts_beyond_what_is_taken(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(which: int) -> tuple[int, int]:
        soft = {resource.RLIMIT_AS: 4 * GIB, resource.RLIMIT_DATA: 3 * GIB}[which]
        return soft, soft

    monkeypatch.setattr(resource, "getrlimit", limits)
    assert free(machine) == 2.5 * GIB  # 3 but for the half that VmData has; 4 but for the whole that VmSize has


def test_how_many_pictures_pass_at_once_follows_from_their_size_alone() -> None:
    assert memory.pictures_at_once(32, CPU) >= 512
    assert memory.pictures_at_once(128, CPU) == 64
    assert memory.pictures_at_once(4096, CPU) == 8


def test_each_of_several_processes_counts_with_its_share_of_the_machine(machine: Path) -> None:
    """16 GiB, of which this process holds one and the others seven: a quarter is four, of which three are left."""
    write(machine / "proc" / "meminfo", f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB\n")
    write(machine / "proc" / "self" / "status", f"RssAnon:\t{2**20} kB\n")
    assert [free(machine, sharers) for sharers in (1, 2, 4, 32)] == [8 * GIB, 7 * GIB, 3 * GIB, 0]
    write(machine / "proc" / "self" / "cgroup", "0::/\n")
    write(machine / "groups" / "memory.max", f"{12 * GIB}\n")
    write(machine / "groups" / "memory.current", f"{2 * GIB}\n")
    assert [free(machine, sharers) for sharers in (1, 4)] == [8 * GIB, 2 * GIB]


def test_runs_on_one_gpu_take_even_shares_whichever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 GiB for four: 20 for each, less what it holds; what torch keeps of an earlier stage is its own to take."""
    gpu, whole = torch.device("cuda", 0), 80 * GIB
    for others, allocated, reserved, expected in ((0, 0, 0, 20), (60, 0, 0, 20), (20, 5, 15, 15), (75, 0, 4, 5)):
        left = whole - others * GIB - reserved * GIB
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, left=left: (left, whole))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _, n=allocated: n * GIB)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _, n=reserved: n * GIB)
        assert memory.free(gpu, sharers=4) == expected * GIB
        assert memory.holds(gpu, expected * GIB // 8 - 1, sharers=4)
        assert not memory.holds(gpu, expected * GIB // 8, sharers=4)


def test_a_gpu_keeps_no_more_beside_a_step_than_the_plan_leaves() -> None:
    pictures = 1 / 8
    views = (1 - pictures) / contrastive.KEPT
    assert footprint.SHARE + pictures + views < 1
