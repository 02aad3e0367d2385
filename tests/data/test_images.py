"""One `Images` for every source: what it holds, and a cache that no accident can make wrong."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, center_crop
from torchvision.transforms.functional import resize as torchvision_resize

from headstart.data import Images, cache, decode, open_images, prepare
from headstart.data.decode import NotNowError
from headstart.data.images import Squashed, gathered
from headstart.records.config import DataConfig
from headstart.records.errors import InputError, RunError
from tests.data.pictures import encoded, folder, pixels, put
from tests.processes import prepared


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(*sources: object, **data: Any) -> Images:
    return open_images(DataConfig(sources=tuple(str(s) for s in sources), **data))


def many(root: Path, n: int = 40, size: Callable[[int], tuple[int, int]] = lambda i: (20 + i % 3, 24)) -> Path:
    return folder(root, [f"{'ab'[i % 2]}/{i:03d}.png" for i in range(n)], size)


def frames_are_right(images: Images, root: Path) -> bool:
    """Every picture is, pixel for pixel, what its file holds."""
    frames, valid = images.batch(range(len(images)))
    for name, frame, (h, w) in zip(images.names, frames.numpy(), valid.tolist(), strict=True):
        expected = np.asarray(Image.open(root / name).convert("RGB")).transpose(2, 0, 1)
        if expected.shape[1:] != (h, w) or not np.array_equal(frame[:, :h, :w], expected):
            return False
        if frame[:, h:].any() or frame[:, :, w:].any():
            return False
    return True


def test_batches_are_padded_at_the_right_and_bottom(tmp_path: Path, own: Path) -> None:
    images = opened(many(tmp_path / "p"))
    frames, valid = images.batch([2, 0, 1])
    assert frames.dtype == torch.uint8
    assert frames.shape == (3, 3, 22, 24)
    assert valid.tolist() == [[20 + 4 % 3, 24], [20, 24], [22, 24]] == images.sizes[[2, 0, 1]].tolist()
    assert images.size is None
    assert images.training_size("auto") == 128
    assert images.training_size(64) == 64
    assert frames_are_right(images, tmp_path / "p")
    assert images.batch(torch.tensor([1]))[0].shape == (1, 3, 22, 24)


def test_squares_of_one_size_are_kept_as_they_are(tmp_path: Path, own: Path) -> None:
    images = opened(many(tmp_path / "p", size=lambda i: (24, 24)))
    assert images.size == images.training_size("auto") == 24
    assert torch.equal(images.squashed([3, 1], 24), images.batch([3, 1])[0])
    large = opened(many(tmp_path / "q", 20, size=lambda i: (130, 130)))
    assert large.size == 130
    assert large.training_size("auto") == 128


def plainly_squashed(path: Path, size: int) -> np.ndarray:
    picture = Image.open(path).convert("RGB")
    return np.asarray(torchvision_resize(picture, [size, size], InterpolationMode.BILINEAR, antialias=True)).transpose(
        2, 0, 1
    )


@pytest.mark.parametrize("detail", [1.0, 0.0])
@pytest.mark.parametrize("size", ["auto", 16])
def test_squashed_is_torchvisions_resize_of_the_original(tmp_path: Path, own: Path, size: Any, detail: float) -> None:
    """Byte for byte at the training size, also of pictures that are kept smaller than they were."""
    root = many(tmp_path / "p", 20, size=lambda i: [(300, 420), (90, 90), (128, 128), (31, 700)][i % 4])
    images = opened(root, size=size, detail=detail)
    side = images.training_size(size)
    seen = images.squashed(range(len(images)), side).numpy()
    for name, square in zip(images.names, seen, strict=True):
        assert np.array_equal(square, plainly_squashed(root / name, side)), name
    if detail == 0:
        other = images.squashed(range(len(images)), 40).numpy()
        assert all(np.array_equal(s, plainly_squashed(root / n, 40)) for n, s in zip(images.names, other, strict=True))


def test_large_photographs_keep_what_the_smallest_crop_needs(tmp_path: Path, own: Path) -> None:
    root = many(tmp_path / "p", 20, size=lambda i: [(400, 600), (50, 3000), (60, 80)][i % 3])
    images = opened(root, size=32)
    valid = images.batch(range(len(images)))[1].numpy()
    for (h, w), (native_h, native_w) in zip(valid, images.native, strict=True):
        assert 0.08 * 0.75 * h * w >= 0.98 * min(32**2, 0.08 * 0.75 * native_h * native_w)
        assert min(h, w) >= min(32, native_h, native_w)
        assert abs(h / w / (native_h / native_w) - 1) < 0.05 or min(h, w) == 32
    assert (valid < images.native).any()
    assert (opened(root, size=32, detail=0).batch(range(20))[1].numpy() == images.native).all()


def test_a_wrong_guess_of_uniform_sizes_starts_over(tmp_path: Path, own: Path) -> None:
    root = many(tmp_path / "p", size=lambda i: (24, 24) if i != 39 else (30, 24))
    images = opened(root)
    assert images.size is None
    assert images.squashed([0], 128).shape == (1, 3, 128, 128)
    assert frames_are_right(images, root)


def test_bad_files_are_set_aside_with_their_reasons(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = many(tmp_path / "p")
    put(root / "a/broken.png", b"junk")
    put(root / "b/cut.png", (root / "a/000.png").read_bytes()[:200])
    images = opened(root)
    assert len(images) == 40
    assert dict(images.skipped).keys() == {"a/broken.png", "b/cut.png"}
    assert "2 of 42 pictures set aside" in capsys.readouterr().err
    assert opened(root).skipped == images.skipped
    assert frames_are_right(images, root)


def test_too_many_bad_files_refuse_to_start(tmp_path: Path, own: Path) -> None:
    root = many(tmp_path / "p")
    for i in range(10):
        put(root / f"a/broken{i}.png", b"junk")
    assert len(opened(root, max_skipped=0).skipped) == 10
    put(root / "a/broken10.png", b"junk")
    with pytest.raises(InputError, match=r"11 of 51 .* data\.max-skipped 0\.05"):
        opened(root)
    assert len(opened(root, max_skipped=0.3)) == 40
    with pytest.raises(InputError, match="of 1 picture none can be read"):
        opened(folder(tmp_path / "q", []) / put(tmp_path / "q/x.png", b"junk").name)


def test_partly_labelled_sets_say_how_many(tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = many(tmp_path / "p")
    put(tmp_path / "l.csv", b"name,label\na/000.png,x\nb/001.png,y\n")
    assert (opened(root, labels=str(tmp_path / "l.csv")).labels >= 0).sum() == 2
    assert "2 of 40 pictures have labels" in capsys.readouterr().err


def test_the_fingerprint_is_of_the_content_not_the_place(tmp_path: Path, own: Path) -> None:
    first = opened(many(tmp_path / "p")).fingerprint
    shutil.copytree(tmp_path / "p", tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert opened(tmp_path / "elsewhere").fingerprint == first
    assert opened(tmp_path / "p", memory_gib=0).fingerprint == first
    assert opened(tmp_path / "p", labels="none").fingerprint != first
    put(tmp_path / "elsewhere/a/000.png", encoded(pixels(20, 24, 99), "png"))
    assert opened(tmp_path / "elsewhere").fingerprint != first


# ------------------------------------------------------------------------------------------------------------ cache


def the_file(own: Path) -> Path:
    (path,) = own.glob("*.pictures")
    return path


def test_the_second_start_decodes_nothing(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = many(tmp_path / "p")
    opened(root)
    monkeypatch.setattr("headstart.data.prepare.read_picture", lambda *_: pytest.fail("decoded again"))
    assert len(opened(root)) == 40


def test_pictures_are_gathered_block_by_block(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.data.images.BLOCK", 7)
    images = opened(many(tmp_path / "p"), size=16)
    squashed = Squashed(images, np.arange(40)[::-1], 16)
    asked: list[int] = []

    def read(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        return squashed[rows]

    everything = gathered(read, squashed.shape, torch.device("cpu"))
    assert torch.equal(everything, images.squashed(np.arange(40)[::-1], 16))
    assert asked == [7, 7, 7, 7, 7, 5]


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_memory_and_memory_map_hold_the_same(tmp_path: Path, own: Path, memory: float) -> None:
    root = many(tmp_path / "p")
    images = opened(root, memory_gib=memory)
    assert images.resident == (memory > 0)
    assert frames_are_right(images, root)
    assert np.array_equal(images.squashed([5], 128)[0].numpy(), plainly_squashed(root / images.names[5], 128))


def test_pictures_leave_half_of_the_free_memory_to_the_training(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 GiB of them under a container's limit of 4 GiB were held in memory, and the kernel ended the process."""
    root = many(tmp_path / "p")
    held = opened(root)
    size = the_file(own).stat().st_size
    for free, resident in ((None, True), (2 * size, True), (2 * size - 2, False), (0, False)):
        monkeypatch.setattr(prepare, "free", lambda device, free=free: free)
        images = opened(root)
        assert images.resident == resident
        assert images.fingerprint == held.fingerprint
        assert frames_are_right(images, root)


def same_length_edit(path: Path) -> None:
    before = path.stat()
    other = encoded(pixels(20, 24, 77), "bmp")
    assert len(other) == before.st_size
    path.write_bytes(other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a careful copy does


def test_a_changed_source_is_noticed(tmp_path: Path, own: Path) -> None:
    root = many(tmp_path / "p")
    put(root / "a/x.bmp", encoded(pixels(20, 24, 50), "bmp"))
    for change in (
        lambda: same_length_edit(root / "a/x.bmp"),
        lambda: put(root / "b/new.png", encoded(pixels(20, 20, 60), "png")),
        lambda: (root / "a/000.png").unlink(),
        lambda: (root / "a/002.png").rename(root / "b/002.png"),
    ):
        opened(root)
        time.sleep(0.02)  # file times tick
        change()
        images = opened(root)
        assert sorted(images.names) == sorted(p.relative_to(root).as_posix() for p in root.rglob("*.*"))
        assert frames_are_right(images, root)


@pytest.mark.parametrize("memory", [4.0, 0.0])
@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "header", "frame", "squashed", "index", "foreign"])
def test_a_damaged_cache_is_never_believed(tmp_path: Path, own: Path, damage: str, memory: float) -> None:
    root = many(tmp_path / "p")
    opened(root, memory_gib=memory)
    path = the_file(own)
    data = bytearray(path.read_bytes())
    frames = 3 * 24 * sum(20 + i % 3 for i in range(40))
    at = {"header": 20, "frame": 64 + frames // 2, "squashed": 64 + frames + 1000, "index": len(data) - 50}.get(damage)
    if at is not None:
        data[at] ^= 1
    other: dict[str, bytes | bytearray] = {
        "empty": b"",
        "cut": data[:-1000],
        "longer": data + b"x",
        "foreign": b"MZ" + bytes(1000),
    }
    path.write_bytes(bytes(other.get(damage, data)))
    images = opened(root, memory_gib=memory)
    if memory or damage not in ("frame", "squashed"):
        assert frames_are_right(images, root)
        return
    with pytest.raises(RunError, match=r"damaged at \w/\d+\.png"):  # found when the picture is first read
        images.batch(range(40))
    assert not path.exists()
    assert frames_are_right(opened(root, memory_gib=memory), root)


def test_a_cache_folder_that_cannot_be_written_costs_only_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "file", b"")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    root = many(tmp_path / "p")
    assert frames_are_right(opened(root), root)
    assert "cannot be written" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match="memory-gib"):
        opened(root, memory_gib=0)


def _only_open(root: str, cache_dir: str) -> None:
    opened(root, cache_dir=cache_dir, memory_gib=0)


def _open_in_child(root: str, cache_dir: str, done: "Queue[str]") -> None:
    images = opened(root, cache_dir=cache_dir, memory_gib=0)
    done.put(images.fingerprint if frames_are_right(images, Path(root)) else "wrong")


def test_processes_that_start_at_once_agree(tmp_path: Path, own: Path) -> None:
    root = many(tmp_path / "p", 300)
    children = prepared()
    done = children.Queue()
    processes = [children.Process(target=_open_in_child, args=(str(root), str(own), done)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {done.get(timeout=600) for _ in processes}
    for process in processes:
        process.join()
    assert found == {opened(root).fingerprint}
    assert len(list(own.glob("*.pictures"))) == 1


class _Dying:
    """A file whose process is killed, as by `kill -9`, at its n-th write; counts them."""

    def __init__(self, file: BinaryIO, n: int) -> None:
        self.file, self.left, self.written = file, n, 0

    def write(self, data: bytes) -> int:
        if self.left == 0:
            self.file.flush()  # what an operating system may have on disk by then
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        self.written += 1
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _writes(root: str, cache_dir: str, n: int) -> int:
    """Build the cache, dying at write n (never, for -1); how many writes it took."""
    whole: Any = cache.write
    files: list[_Dying] = []

    def write(file: BinaryIO, *rest: Any) -> None:
        files.append(_Dying(file, n))
        whole(files[-1], *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "write", write)
        _only_open(root, cache_dir)
    return sum(file.written for file in files)


def test_twenty_kills_while_the_cache_is_built(tmp_path: Path, own: Path) -> None:
    root = many(tmp_path / "p", 60, size=lambda i: (100, 90 + i % 3))
    writes = _writes(str(root), str(own), -1)
    fingerprint = opened(root, memory_gib=0).fingerprint
    assert writes >= 20
    for point in np.linspace(0, writes - 1, 20).astype(int).tolist():
        for path in own.glob("*.pictures"):
            path.unlink()
        process = prepared().Process(target=_writes, args=(str(root), str(own), point))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert list(own.glob("*.pictures")) == []  # it gets its name when it is whole
    images = opened(root)
    assert images.fingerprint == fingerprint
    assert frames_are_right(images, root)
    assert [p.name for p in own.glob(".*.tmp")] == []


def test_real_photographs_are_what_pillow_sees(grocery: Path, own: Path) -> None:
    images = opened(grocery)
    assert (len(images), len(images.classes), images.skipped) == (989, 43, [])
    some = np.random.default_rng(0).choice(989, 20, replace=False)
    frames, valid = images.batch(some)
    for at, frame, (h, w) in zip(some, frames.numpy(), valid.tolist(), strict=True):
        expected = np.asarray(Image.open(grocery / images.names[at]).convert("RGB"))
        assert np.array_equal(frame[:, :h, :w].transpose(1, 2, 0), expected)
    squares = images.squashed(some, 128).numpy()
    assert all(
        np.array_equal(s, plainly_squashed(grocery / images.names[i], 128)) for i, s in zip(some, squares, strict=True)
    )


# ------------------------------------------------------------------------------------- what may pass, and other people


def test_what_cannot_be_read_now_is_not_kept_as_unreadable(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = many(tmp_path / "p")
    real = decode.read_picture

    def refused(path: str, *levels: Any) -> Any:
        if path.endswith("3.png"):
            raise NotNowError("cannot be read: Permission denied")
        return real(path, *levels)

    monkeypatch.setattr(prepare, "read_picture", refused)
    for memory in (4.0, 0.0):
        images = opened(root, memory_gib=memory)
        assert (len(images), len(images.skipped)) == (36, 4)
        assert list(own.glob("*.pictures")) == []
        assert len(images.batch(range(36))[0]) == 36
    assert "4 pictures cannot be read now" in capsys.readouterr().err
    monkeypatch.setattr(prepare, "read_picture", real)
    assert opened(root).skipped == []
    assert len(list(own.glob("*.pictures"))) == 1


def test_a_cache_file_of_somebody_else_is_let_be(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = many(tmp_path / "p")
    fingerprint = opened(root).fingerprint
    theirs = the_file(own)
    real = cache.read

    def read(path: Path, memory: bool) -> Any:
        if path == theirs:
            raise PermissionError(13, "Permission denied")
        return real(path, memory)

    monkeypatch.setattr(cache, "read", read)
    assert opened(root).fingerprint == fingerprint
    (ours,) = set(own.glob("*.pictures")) - {theirs}
    monkeypatch.setattr(prepare, "read_picture", lambda *_: pytest.fail("decoded again"))
    assert opened(root).fingerprint == fingerprint
    assert ours.exists()


def test_only_its_owner_replaces_a_file_in_a_folder_for_everybody(tmp_path: Path) -> None:
    put(tmp_path / "x", b"")
    owner = (tmp_path / "x").stat().st_uid
    assert prepare._replaceable(tmp_path / "x", owner + 1)
    tmp_path.chmod(0o1777)
    assert not prepare._replaceable(tmp_path / "x", owner + 1)
    assert prepare._replaceable(tmp_path / "x", owner)
    assert prepare._replaceable(tmp_path / "gone", owner + 1)


def test_a_cache_for_which_a_limit_has_no_room_is_told_with_the_limit(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(path: Path, memory: float) -> cache.Store:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    root = many(tmp_path / "p")
    opened(root)
    monkeypatch.setattr(cache, "read", no_room)
    with pytest.raises(InputError, match=r"takes 0\.0 GiB, more than .*ulimit -v.*--data\.size"):
        opened(root)


def test_without_a_home_there_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(path: Path) -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HEADSTART_CACHE")
    monkeypatch.setattr(Path, "expanduser", nobody)
    root = many(tmp_path / "p")
    assert frames_are_right(opened(root), root)
    assert "there is no home folder" in capsys.readouterr().err
    with pytest.raises(InputError, match="~nobodyhere/c; there is no such home folder"):
        opened(root, cache_dir="~nobodyhere/c")


@pytest.mark.parametrize("kind", ["run", "study", "finetuned"])
def test_runs_inside_data_are_left_out_and_said(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    root = many(tmp_path / "p")
    folder(root / "out", ["samples/pairs.png", "runs/one/samples/pairs.png"])
    for name in {"study": ("study.yaml",)}.get(kind, ("config.yaml", "metrics.jsonl")):
        put(root / "out" / name, b"")
    images = opened(root)
    assert len(images) == 40
    assert images.classes == ["a", "b"]
    assert "left out: the pictures of runs and studies in out" in capsys.readouterr().err


def test_a_run_in_the_very_folder_of_its_pictures_leaves_its_sheets_out(tmp_path: Path, own: Path) -> None:
    root = many(tmp_path / "p")
    folder(root, ["samples/pairs.png", "evaluations/x.png"])
    for name in ("config.yaml", "metrics.jsonl"):
        put(root / name, b"")
    assert len(opened(root)) == 40


def test_a_looping_link_and_a_closed_folder_cost_only_themselves(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = many(tmp_path / "p")
    (root / "a" / "loop.png").symlink_to("loop.png")
    (root / "b" / "loop").symlink_to("loop")
    images = opened(root)
    assert len(images) == 40
    assert [name for name, _ in images.skipped] == ["a/loop.png"]
    if os.getuid():
        (root / "b").chmod(0)
        assert len(opened(root)) == 20
        assert "left out: b/ (Permission denied)" in capsys.readouterr().err
        (root / "b").chmod(0o755)


@pytest.mark.parametrize("detail", [1.0, 0.0])
def test_pictures_can_be_cropped_or_padded_instead_of_squashed(tmp_path: Path, own: Path, detail: float) -> None:
    root = many(tmp_path / "p", 20, size=lambda i: [(30, 42), (90, 47), (33, 33), (31, 70)][i % 4])
    squashed = opened(root, size=16, detail=detail)
    cropped, padded = (opened(root, size=16, detail=detail, resize=how) for how in ("crop", "pad"))
    assert len({images.fingerprint for images in (squashed, cropped, padded)}) == 1
    for at, name in enumerate(squashed.names):
        picture = Image.open(root / name)
        middle = center_crop(torchvision_resize(picture, 16, InterpolationMode.BILINEAR), [16, 16])
        assert np.array_equal(cropped.squashed([at], 16)[0].permute(1, 2, 0).numpy(), np.asarray(middle))
        seen = padded.squashed([at], 16)[0].numpy()
        rows, columns = (np.flatnonzero(seen.max(axis=(0, axis)) > 0) for axis in (2, 1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(height, width) == 16
        assert abs(height / width / (picture.height / picture.width) - 1) < 0.1
        assert abs(rows[0] - (15 - rows[-1])) <= 1
        assert abs(columns[0] - (15 - columns[-1])) <= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_pictures_are_decoded_by_as_many_threads_as_were_asked_for(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(prepare, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    large = [encoded(pixels(400, 300, i), "png") for i in range(3)]
    for i, data in enumerate(large):
        put(tmp_path / "p" / f"{i}.png", data)
    open_images(DataConfig(sources=(str(tmp_path / "p"),), cache_dir=str(tmp_path / "cache")))
    assert asked == [threads]
