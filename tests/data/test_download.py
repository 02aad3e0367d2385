"""Archives are fetched, and unpacked nowhere else."""

import contextlib
import io
import tarfile
from pathlib import Path

import pytest

from headstart.data import download
from headstart.records.errors import InputError
from tests.data.pictures import find, write_cifar10


@pytest.fixture(params=["filters", "no filters"], autouse=True)
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11.0 to 3.11.3 have no filters for archives."""
    if request.param == "no filters":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


def test_download_fetches_and_unpacks_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive comes from a stand-in for the network; its md5 goes to torchvision, the unpacking is ours."""
    made = write_cifar10(tmp_path / "made", 2)

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        assert url.endswith("cifar-10-python.tar.gz")
        assert len(md5) == 32
        Path(root).mkdir(parents=True, exist_ok=True)
        with tarfile.open(Path(root, filename), "w:gz") as tar:
            tar.add(made / "cifar-10-batches-py", "cifar-10-batches-py")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    assert len(find(f"cifar10:{tmp_path}/there", download=True).names) == 18

    def fail(url: str, root: str, filename: str, md5: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    with pytest.raises(InputError, match=r"no network.*by hand"):
        find(f"cifar10:{tmp_path}/elsewhere", download=True)


def test_what_was_cut_short_is_taken_neither_for_the_archive_nor_for_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacking that ended within a set left a part of it, which every later call took for the whole."""
    made, fetched = write_cifar10(tmp_path / "made", 2) / "cifar-10-batches-py", 0

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        nonlocal fetched
        fetched += 1
        Path(root).mkdir(parents=True, exist_ok=True)
        Path(root, filename).write_bytes(b"half")
        if fetched == 1:
            raise KeyboardInterrupt
        with tarfile.open(Path(root, filename), "w:gz") as tar:
            tar.add(made, made.name)

    def killed(path: Path, to: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda path, md5: Path(path).exists())
    there = tmp_path / "there"
    with pytest.raises(KeyboardInterrupt):
        find(f"cifar10:{there}", download=True)
    with monkeypatch.context() as patch:
        patch.setattr(download, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            find(f"cifar10:{there}", download=True)
    assert not (there / made.name).exists()
    with pytest.raises(InputError, match=r"--data\.download"):
        find(f"cifar10:{there}")
    assert len(find(f"cifar10:{there}", download=True).names) == 18
    assert fetched == 2
    assert [path.name for path in there.glob(".*") if not path.name.startswith(".claim")] == []


@pytest.mark.parametrize("member", ["../outside.txt", "/tmp/headstart-outside.txt", "link"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path, member: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        info = tarfile.TarInfo(member)
        if member == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "../../etc"
            tar.addfile(info)
        else:
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
    with contextlib.suppress(InputError):  # an absolute name is made relative; the others are refused
        download.unpack(tmp_path / "evil.tar", tmp_path / "in")
    assert not (tmp_path / "outside.txt").exists()
    assert not Path("/tmp/headstart-outside.txt").exists()
    assert not (tmp_path / "in" / "link").is_symlink()
