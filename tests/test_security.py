"""Hostile inputs, each refused in one sentence or shown as harmless text; nothing in them is ever run.

The names of one folder carry HTML, spreadsheet formulas, Markdown, screen markup and terminal escapes; one small run on
it goes through every command, with the network cut.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.cli.commands import main
from headstart.data import download, open_images
from headstart.data.decode import UnreadableError, read_picture
from headstart.engine import loggers
from headstart.engine.checkpoint import MAGIC
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.study import RayOptions
from headstart.study.ray import on_ray

ESCAPE = "\x1b[2J\x1b]0;owned\x07"
SCRIPT = "<script>alert(1)<"  # a file name holds no slash
TAG = '"><img src=x onerror=alert(2)>'
CLASSES = (SCRIPT, "=cmd()", "@SUM(1)", f"{ESCAPE}red", "a\nb | c", "[bold]x")
FILES = (
    "=HYPERLINK(1)",
    ESCAPE,
    "new\nline",
    TAG,
    "-1+1",
    "+2",
    "@x",
    "[link=x]",
    "\tt",
    "*_`![a](b)",
    "\u202egpj",
    "\r=1",
)
SMALL = [
    "--backbone.name",
    "mobilenet_v3_small",
    "--data.size",
    "16",
    "--autoencoder.epochs",
    "1",
    "--contrastive.epochs",
    "2",
    "--contrastive.batch-size",
    "16",
    "--head.hidden-dim",
    "16",
    "--head.output-dim",
    "8",
    "--precision",
    "float32",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--probe.names",
    "knn",
]
MARKUP = ("<script>alert", "<img src=x")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202e]")


@dataclass
class Said:
    """How a command ended, and all it wrote on the screen."""

    code: int
    text: str

    @property
    def harmless(self) -> bool:
        """Whether the terminal only ever got text."""
        return not CONTROLS.search(self.text)


def command(*arguments: object) -> Said:
    """Run a command here; an exception that is not ours fails the test."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return Said(int(ended.value.code or 0), out.getvalue())


def refused(said: Said, *words: str) -> None:
    """Exit 2, one sentence that names what these words say, and nothing for the terminal to obey."""
    assert said.code == 2, said
    complaint = [line for line in said.text.splitlines() if line.startswith("headstart:")]
    assert len(complaint) == 1, said.text
    assert all(word in complaint[0] for word in words), complaint
    assert said.harmless


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 pictures whose folder, classes and names are hostile, and two files that are no pictures."""
    root = tmp_path_factory.mktemp("photos") / f"[red][]{TAG}{ESCAPE}"
    for kind, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number, file in enumerate(FILES):
            noise = np.random.default_rng([kind, number]).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{file}{number}.png")
    (root / "=cmd()" / f"=cmd()|x{ESCAPE}\n.png").write_bytes(b"no picture")
    (root / SCRIPT / f"{TAG}.png").write_bytes(b"")
    return root


@dataclass
class NoNetwork:
    """How often something tried to open a connection or a port."""

    tries: list[str]


@pytest.fixture(scope="module")
def cut() -> Iterator[NoNetwork]:
    """For the whole module, no socket can be made but those within the machine."""
    found = NoNetwork([])

    class Refusing(socket.socket):
        def connect(self, address: Any) -> None:
            self.refuse(f"connect {address}")

        def bind(self, address: Any) -> None:
            self.refuse(f"bind {address}")

        def listen(self, *backlog: int) -> None:
            self.refuse("listen")

        def refuse(self, what: str) -> None:
            found.tries.append(what)
            raise OSError(f"no network here: {what}")

    def lookup(*arguments: Any, **_: Any) -> None:
        found.tries.append(f"look up {arguments[0]}")
        raise OSError("no network here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Refusing)
        patch.setattr(socket, "getaddrinfo", lookup)
        yield found


@pytest.fixture(scope="module")
def finished(photos: Path, cut: NoNetwork, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A run on the hostile folder, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, command("pretrain", photos, "--out", out, *SMALL)


@pytest.fixture(scope="module")
def run(finished: tuple[Path, Said]) -> Path:
    assert finished[1].code == 0, finished[1].text
    return finished[0]


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("figures", "tables")))


# -------------------------------------------------------------------------------------------- names in what is written


def test_a_run_needs_no_network(finished: tuple[Path, Said], run: Path, cut: NoNetwork, tmp_path: Path) -> None:
    assert command("report", run).code == 0
    assert command("export", run, "--format", "torchvision", "--out", tmp_path / "x.safetensors").code == 0
    assert not cut.tries


def test_the_screen_shows_names_as_text(finished: tuple[Path, Said]) -> None:
    said = finished[1]
    assert said.harmless
    assert "2 of 74 pictures set aside" in said.text
    assert "[red][]" in "".join(said.text.split())  # not taken for a colour
    assert r"\x1b[2J" in said.text


def test_pages_tables_and_cards_show_names_as_text(run: Path, photos: Path, tmp_path: Path) -> None:
    assert command("export", run, "--format", "torchvision", "--out", tmp_path / "x.pt").harmless
    files = [path for kind in ("html", "md", "svg", "csv", "tex") for path in run.rglob(f"*.{kind}")]
    assert {path.name for path in files} >= {"report.html", "MODEL_CARD.md", "skipped.csv", "table2.md", "table2.csv"}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert path.suffix == ".csv" or not CONTROLS.search(text), path  # a CSV is data, and holds the names themselves
        if path.suffix in (".html", ".md", ".svg"):
            assert not any(markup in text for markup in MARKUP), path
        if path.suffix == ".svg":
            ElementTree.fromstring(text)
        if path.suffix == ".csv":
            no_formulas(path)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(2)&gt;" in page
    assert "default-src 'none'" in page
    card = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in card
    assert all(line.startswith("|") for line in card.splitlines() if "alert" in line and not line.startswith("#"))


def no_formulas(path: Path) -> None:
    """No cell of a CSV begins like a formula (numbers may be negative), and every row has the header's length."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert len({len(row) for row in rows}) == 1, path
    for cell in (cell for row in rows for cell in row):
        number = re.fullmatch(r"-?[\d.]+(e[-+]\d+)?", cell)
        assert number or cell[:1] not in ("=", "+", "-", "@", "\t", "\r"), (path, cell)


def test_lists_of_a_set_are_safe(run: Path, photos: Path, tmp_path: Path) -> None:
    query = photos / SCRIPT / f"{ESCAPE}1.png"
    assert query.exists()
    for said in (
        command("search", run, photos, "--query", query, "--out", tmp_path / "s.png"),
        command("search", run, photos, "--query", query, "--json"),
        command("select", run, photos, "-n", 5, "--out", tmp_path / "chosen"),
        command("check", photos, "--json", tmp_path / "check.json"),
    ):
        assert said.code == 0, said.text
        assert said.harmless
    for path in (tmp_path / "chosen").glob("*.csv"):
        no_formulas(path)
    assert len(list((tmp_path / "chosen").glob("*.csv"))) == 5


def test_embeddings_hold_names_as_data(run: Path, photos: Path, tmp_path: Path) -> None:
    assert command("embed", run, photos, "--out", tmp_path / "e.npz", "--threads", 1).harmless
    with np.load(tmp_path / "e.npz", allow_pickle=False) as found:
        assert found["embeddings"].shape[0] == 72
        assert set(found["classes"]) == set(CLASSES)


def test_predictions_are_safe_and_a_hostile_classifier_is_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    said = command("finetune", run, photos, "--out", folder, "--epochs", 1, "--no-compare", "--threads", 1)
    assert said.code == 0, said.text
    assert said.harmless
    assert command("predict", folder, photos, "--out", tmp_path / "p.csv", "--threads", 1).harmless
    no_formulas(tmp_path / "p.csv")
    marker = tmp_path / "ran"
    (folder / "classifier.safetensors").write_bytes(pickle.dumps(Bomb(marker)))
    refused(command("predict", folder, photos, "--out", tmp_path / "q.csv"), "classifier.safetensors")
    for content in ("[]", '{"backbone": 5}', '{"size": 1e999}', "{"):
        (folder / "finetune.json").write_text(content)
        refused(command("predict", folder, photos, "--out", tmp_path / "q.csv"), "finetune.json")
    assert not marker.exists()


# ---------------------------------------------------------------------------------------------------------- pickles


class Bomb:
    """Makes a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self.marker}'",)


def torch_file(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "hyper_parameters": bomb}, file)
    return file.getvalue()


def legacy_file(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    torch.save({"x": bomb}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


BOMBS: dict[str, Callable[[Bomb], bytes]] = {"zip": torch_file, "legacy": legacy_file, "bare": pickle.dumps}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".pth", ".safetensors"])
def test_pickled_weights_are_refused(kind: str, suffix: str, tmp_path: Path) -> None:
    marker, file = tmp_path / "ran", tmp_path / f"weights{suffix}"
    file.write_bytes(BOMBS[kind](Bomb(marker)))
    refused(command("evaluate", file, "--data", "digits", "--out", tmp_path / "e.json", "--threads", 1), file.name)
    for option in ("--backbone.weights", "--autoencoder.weights"):
        out = tmp_path / option
        refused(command("pretrain", "digits", "--data.limit", 64, "--out", out, *SMALL, option, file), file.name)
        assert not (out / "result.json").exists()
    assert not marker.exists()


def test_the_bombs_are_live(tmp_path: Path) -> None:
    """What the tests above refuse would have run."""
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


def test_weights_that_unpack_to_a_bomb_are_refused(tmp_path: Path) -> None:
    plain, packed = io.BytesIO(), tmp_path / "packed.pt"
    torch.save({"conv1.weight": torch.zeros(5_000_000)}, plain)
    with zipfile.ZipFile(plain) as before, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as after:
        for member in before.infolist():
            after.writestr(member.filename, before.read(member))
    assert packed.stat().st_size < 100_000
    refused(command("evaluate", packed, "--data", "digits", "--out", tmp_path / "e.json"), "unpack to")


def test_a_pickled_cifar_batch_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    marker = tmp_path / "ran"
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (root / name).write_bytes(pickle.dumps({b"data": Bomb(marker), b"label_names": Bomb(marker)}))
    refused(command("pretrain", f"cifar10:{tmp_path}", "--out", tmp_path / "run"), "batches.meta", "posix.system")
    assert not marker.exists()


def checkpoint(value: object, **options: Any) -> bytes:
    """A checkpoint file with the right checksum."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return MAGIC + hashlib.sha256(file.getvalue()).digest() + file.getvalue()


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint.previous.pt"])
def test_a_hostile_checkpoint_is_refused(name: str, copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (copy / "result.json").unlink()
    (copy / "stages.json").unlink(missing_ok=True)
    for content in (
        checkpoint({"stage": "contrastive", "state": {}, "metrics": 0, "x": Bomb(marker)}),
        checkpoint({"stage": Bomb(marker)}, _use_new_zipfile_serialization=False),
        checkpoint([1]),
        checkpoint({"stage": "autoencoder", "state": {"now": 1}, "metrics": 0}),
    ):
        for file in copy.glob("checkpoint*.pt"):
            file.unlink()
        (copy / name).write_bytes(content)
        refused(command("pretrain", "--config", copy / "config.yaml", "--out", copy), "checkpoint")
    assert not marker.exists()


def test_a_pickle_in_place_of_a_checkpoint_is_named_and_passed_over(copy: Path, tmp_path: Path) -> None:
    whole, marker = (copy / "backbone.safetensors").read_bytes(), tmp_path / "ran"
    (copy / "result.json").unlink()
    (copy / "checkpoint.pt").write_bytes(pickle.dumps(Bomb(marker)))
    said = command("pretrain", "--config", copy / "config.yaml", "--out", copy)
    assert said.code == 0, said.text
    assert "checkpoint.pt is damaged" in " ".join(said.text.split())
    assert (copy / "backbone.safetensors").read_bytes() == whole
    assert not marker.exists()


@pytest.mark.parametrize(
    "parts",
    [
        {"train": np.array([Bomb(Path("ran"))], dtype=object)},
        {"train": np.array([10**6])},
        {"test": np.array([-1])},
        {"val": np.array([[1]])},
        {"val": np.array(["a"])},
        {"train": np.array([1, 1])},
        {"test": np.arange(0)},
    ],
    ids=["objects", "beyond", "negative", "a table", "text", "twice", "nothing"],
)
def test_hostile_splits_are_refused(parts: dict[str, np.ndarray], copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    np.savez(copy / "splits.npz", **({name: np.arange(3) for name in ("train", "val", "test")} | parts))
    refused(command("evaluate", copy, "--threads", 1), "splits.npz is damaged")
    assert not (copy / "ran").exists()


# ----------------------------------------------------------------------------------------------- archives and pictures


def member(tar: tarfile.TarFile, name: str, *, link: str | None = None) -> None:
    info = tarfile.TarInfo(name)
    if link is None:
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    else:
        info.type, info.linkname = tarfile.SYMTYPE, link
        tar.addfile(info)


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", None)],
        [("a/../../evil", None)],
        [("link", "..")],
        [("link", "/etc"), ("link/evil", None)],
        [("in", "."), ("in/../../evil", None)],
    ],
    ids=["above", "round about", "link above", "through a link", "link and above"],
)
def test_archives_cannot_write_outside_their_folder(members: list[tuple[str, str | None]], tmp_path: Path) -> None:
    archive, folder = tmp_path / "x.tar.gz", tmp_path / "deep" / "folder"
    with tarfile.open(archive, "w:gz") as tar:
        for name, link in members:
            member(tar, name, link=link)
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"x\.tar\.gz cannot be unpacked"):
        download.unpack(archive, folder)
    assert {path.name for path in tmp_path.rglob("*")} <= {"x.tar.gz", "deep", "folder", "in"}


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A grey PNG of any claimed size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (2**31 - 1, 1), (100_000, 2_000)])
def test_a_picture_that_claims_too_much_is_set_aside(width: int, height: int, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(width, height, zlib.compress(bytes(1000))))
    with pytest.raises(UnreadableError):
        read_picture(str(tmp_path / "x.png"))


def test_strips_100_000_pixels_long_do_not_fill_the_memory(tmp_path: Path) -> None:
    """One lying and one standing would need 30 GB a picture in a batch of their own sizes."""
    for name, width, height in (("lying", 100_000, 1), ("standing", 1, 100_000)):
        rows = (b"\0" + bytes(width)) * height
        (tmp_path / f"{name}.png").write_bytes(png(width, height, zlib.compress(rows)))
    images = open_images(DataConfig(sources=(str(tmp_path),), size=16))
    assert len(images) == 2
    assert images.batch([0, 1])[0].numel() < 2 * 3 * 2049**2
    assert images.squashed([0, 1], 16).shape == (2, 3, 16, 16)


# -------------------------------------------------------------------------------------------------- settings, records


def test_yaml_builds_no_objects(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    bomb = f"!!python/object/apply:os.system [\"touch '{marker}'\"]\n"
    (tmp_path / "study.yaml").write_text(f"name: {bomb}")
    for path in (copy / "config.yaml", copy / "study.yaml"):
        path.write_text(f"seed: {bomb}")
    refused(command("pretrain", "--config", copy / "config.yaml", "--out", tmp_path / "new"), "config.yaml, line 1")
    refused(command("report", copy), "config.yaml, line 1")
    refused(command("embed", copy, "digits", "--out", tmp_path / "e.npz"), "config.yaml, line 1")
    refused(command("evaluate", copy), "config.yaml, line 1")
    refused(command("study", "plan", tmp_path / "study.yaml"), "study.yaml, line 1")
    refused(command("study", "status", copy), "study.yaml, line 1")
    assert not marker.exists()


def test_yaml_references_cannot_explode(copy: Path) -> None:
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    for text in ("\n".join(lines), "a: &a [*a]\n"):
        (copy / "config.yaml").write_text(text)
        refused(command("report", copy), "config.yaml", "references")


def test_a_run_cannot_point_at_other_pictures(copy: Path, tmp_path: Path) -> None:
    from headstart.records.config import load, to_yaml

    config, about = load(copy / "config.yaml")
    other = tmp_path / "elsewhere" / "class"
    other.mkdir(parents=True)
    for number in range(40):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(other / f"{number}.png")
    moved = replace(config, data=replace(config.data, sources=(str(other.parent),)))
    (copy / "config.yaml").write_text(to_yaml(moved, about))
    refused(command("evaluate", copy, "--threads", 1), "have changed")
    (copy / "result.json").unlink()
    refused(command("pretrain", "--config", copy / "config.yaml", "--out", copy), "the pictures themselves")


def altered(result: dict[str, Any], name: str, value: object) -> str:
    """result.json as text with one entry replaced; `...` removes it."""
    result = json.loads(json.dumps(result))
    *path, last = name.split(".")
    inner = result
    for key in path:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(result)


HOSTILE_VALUES: tuple[Any, ...] = (..., None, "x", float("nan"), 10**400, [[1]], {"a": {}}, True, f"{ESCAPE}[/x]")
ENTRIES = (
    "stage",
    "head",
    "head.hidden_dim",
    "head.frozen",
    "probes",
    "probes.knn",
    "probes.knn.accuracy",
    "probes.knn.ci95",
    "untrained.knn",
    "data",
    "data.name",
    "data.train",
    "data.classes",
    "backbone.name",
    "contrastive.epochs",
    "geometry.spectrum",
    "seconds",
    "seconds.contrastive",
    "autoencoder.test_mse",
)


def test_hostile_results_are_named(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in result.json, report and study status show it as text or name the file."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    study = tmp_path / "study"
    place = study / "runs" / "digits,a"
    place.mkdir(parents=True)
    (study / "study.yaml").write_text("name: some\n")
    (study / "runs" / "digits,b").mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        shutil.copy(copy / name, place / name)
    whole = json.loads((copy / "result.json").read_text())
    cases = {f"{name} {value!r:.20}": altered(whole, name, value) for name in ENTRIES for value in HOSTILE_VALUES}
    cases |= {"list": "[]", "null": "null", "number": "5", "deep": "[" * 100_000, "torn": '{"stage": "pro', "empty": ""}
    named = 0
    for case, text in cases.items():
        (place / "result.json").write_text(text)
        for said in (command("study", "status", study), command("report", study)):
            assert said.code in (0, 2), (case, said)
            assert said.harmless, case
            assert said.code == 0 or "digits,a/result.json" in said.text, (case, said)
            named += said.code == 2
    assert named > len(cases) / 2


@pytest.mark.parametrize("content", ["[]", '{"reason": 5}', "{", "null", '{"reason": NaN}'])
def test_a_hostile_failed_json_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "study.yaml").write_text("name: some\n")
    (tmp_path / "runs" / "a" / "failed.json").write_text(content)
    refused(command("study", "status", tmp_path), "failed.json")


def test_names_and_reasons_of_a_study_are_text(copy: Path, tmp_path: Path) -> None:
    for name in (f"{ESCAPE}[/x]{SCRIPT}", "=cmd()"):
        folder = Path(shutil.copytree(copy, tmp_path / "runs" / name, ignore=shutil.ignore_patterns("*.safetensors")))
        assert (folder / "result.json").exists()
    (tmp_path / "runs" / "c[").mkdir()
    (tmp_path / "runs" / "c[" / "failed.json").write_text(json.dumps({"reason": f"{ESCAPE}[/x]{SCRIPT}"}))
    (tmp_path / "study.yaml").write_text('name: "\\e[2J[/x]<script>alert(1)"\n')
    status, report = command("study", "status", tmp_path), command("report", tmp_path)
    assert (status.code, report.code) == (0, 0), (status, report)
    assert status.harmless
    assert "[/x]" in status.text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not any(markup in page for markup in MARKUP)
    for path in (path for kind in ("html", "md", "svg", "tex") for path in tmp_path.glob(f"**/*.{kind}")):
        assert not CONTROLS.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "data: {a: {sources: [digits]}}\nbase: {}\nseeds: x",
        "data: [digits]\nfactors: 5",
        "data: {a: {sources: [digits]}}\nbase: {}\nseeds: [0]\nadded: 5",
        "data: [digits]\npreset: [1]",
        "data: {a: {sources: [digits]}}\nbase: {}\nseeds: [0]\nexclude: 5",
        "[" * 3000,
        "data: {a: {sources: [digits]}}\nbase: {}\nfactors: {head.init: 5}\nseeds: [0]",
    ],
)
def test_a_hostile_study_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    refused(command("study", "plan", tmp_path / "study.yaml", "--no-calibrate"), "study.yaml")
    said = command("study", "status", tmp_path)
    assert said.code in (0, 2), said
    assert said.harmless


@pytest.mark.parametrize(
    "line",
    ['{"stage": "contr', "[1]", '{"loss": NaN}', '{"epoch": "x"}', '{"epoch": 1e400}', "\udcff", "x" * 10],
)
def test_a_damaged_line_of_metrics_is_named(line: str, copy: Path) -> None:
    with (copy / "metrics.jsonl").open("ab") as file:
        file.write(line.encode("utf-8", "surrogateescape"))
    number = len((copy / "metrics.jsonl").read_bytes().splitlines())
    refused(command("report", copy), f"metrics.jsonl, line {number} is damaged")
    (copy / "result.json").unlink()
    refused(command("pretrain", "--config", copy / "config.yaml", "--out", copy), f"metrics.jsonl, line {number}")


# ----------------------------------------------------------------------------------------------- nothing listens, calls


QUIET = """
import importlib, os, pkgutil, socket, sys
def refuse(self, *arguments):
    raise SystemExit(f"something opened a socket: {arguments}")
socket.socket.listen = socket.socket.connect = refuse
import headstart
for module in pkgutil.walk_packages(headstart.__path__, "headstart."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for extra in ("timm", "onnx", "onnxruntime", "pyarrow", "ray", "tensorboard", "mlflow", "wandb"):
    try:
        importlib.import_module(extra)
    except ImportError:
        pass
print("silent")
"""


def test_importing_everything_opens_no_port_and_calls_nobody(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("silent")


def test_telemetry_of_others_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's usage report and dashboard, MLflow's telemetry, W&B's server."""
    asked: dict[str, Any] = {}

    def start(**options: Any) -> None:
        asked.update(options)
        raise InputError("started")

    for name in ("RAY_USAGE_STATS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=start))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=start, Settings=dict))
    monkeypatch.setitem(sys.modules, "mlflow.entities", None)
    with pytest.raises(InputError, match="started"):
        on_ray(None, [], RayOptions())  # type: ignore[arg-type]
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert asked["include_dashboard"] is False
    with pytest.raises(InputError, match="started"):
        loggers.WandB(tmp_path, "study", "run", {})
    assert asked["mode"] == "offline"
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    with pytest.raises(InputError, match="mlflow"):
        loggers.MLflow(tmp_path, "study", "run", {})
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
