"""What the pages tell a reader to type is still right: commands parse, files are there, imported names exist.

The pages are README, CONTRIBUTING, docs/ and results/. Every line of a `sh` block, and every `headstart COMMAND ...`
within a sentence, is read as a shell would. Commands of Headstart's own are parsed by the parser of the command line;
the README's block for one's own pictures is also run, as it stands but for smaller settings.
"""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.gpu import steps_of
from headstart.cli import defaults
from headstart.cli.commands import COMMANDS, main
from headstart.cli.train import pretrain
from headstart.records.config import Config
from headstart.records.errors import InputError
from tests.shapes import photos

__all__ = ["photos"]

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "results/README.md",
]

NEEDS = {
    "pip": "a package registry",
    "docker": "a container engine",
    "tensorboard": "a browser beside a server that keeps running",
    "mlflow": "a browser beside a server that keeps running",
    "wandb": "an account",
    "embedding-atlas": "a package that Headstart does not bring",
    "torchrun": "several processes; tests/training/test_torchrun.py starts them",
    "source": "a shell of one's own; tests/test_package.py completes in one",
    "jupyter": "a person who wants the outputs anew; tests/test_notebooks.py runs the notebooks",
    "export": "a shell of one's own",
    "benchmarks/gpu.sh": "a GPU, or packages to take to one; the commands of its steps are parsed below",
    "headstart pretrain photos/ --out runs/cosine --plugin my_parts --head.kind cosine": "the page's own module",
}
"""Programs, and lines of Headstart's own, that a test machine cannot take as they stand, and what they need."""

SHELL_SCRIPTS = "bash"
"""A whole script (Slurm's): only its lines of Headstart's are read."""


class Line(NamedTuple):
    """A command on a page; one within a sentence may leave out what it needs."""

    page: str
    text: str
    in_sentence: bool = False

    @property
    def words(self) -> list[str]:
        """As a shell splits it, a synopsis' brackets and dots taken away, a variable's value being 1."""
        plain = re.sub(r"\$\w+", "1", re.sub(r"\.\.\.(?=[\s\]]|$)", "", self.text))
        return shlex.split(re.sub(r"\[(-[^\]]*)\]", r"\1", plain), comments=True)


def _blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each fenced block."""
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        yield found[1].strip(), found[2]


def _lines() -> Iterator[Line]:
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for language, text in _blocks(page):
            whole = re.sub(r"\\\n\s*", "", text)
            for line in whole.splitlines() if language in ("sh", SHELL_SCRIPTS) else ():
                if language == SHELL_SCRIPTS and not line.startswith("headstart "):
                    continue
                yield from (Line(name, part.strip(" &")) for part in line.split("&&") if not part.startswith("#"))
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`([^`]+)`", prose):
            if re.match(r"(headstart \w+ \S|make \w|python \S)", span := " ".join(span.split())):
                yield Line(name, span, in_sentence=True)


LINES = [line for line in dict.fromkeys(_lines()) if line.words]


def test_every_page_is_read_and_no_command_stands_in_a_block_without_a_language() -> None:
    assert len(LINES) > 80
    starts = ("headstart ", "python ", "make ", "pip ", "$ ")
    for page in PAGES:
        for language, text in _blocks(page):
            assert language or not text.startswith(starts), f"{page.name}: ```sh is missing before {text[:60]!r}"
        assert not re.search(r"^ {4}headstart ", page.read_text(), re.MULTILINE), f"{page.name}: give it a ```sh block"


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.page}: {line.text[:60]}")
def test_a_documented_command_is_one(line: Line) -> None:
    program, *rest = [word for word in line.words if not re.match(r"[A-Z_]+=", word)] or ["export"]
    if line.text in NEEDS or program in NEEDS:
        return
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(f"\n{target}:" in makefile for target in rest if "=" not in target), line
    elif program == "pytest":
        assert (ROOT / rest[0].partition("::")[0]).exists(), line
    elif program == "python":
        _check_script(rest, line)
    else:
        assert program == "headstart", f"{line}: say in NEEDS what {program} needs"
        _parse(rest, line)


def test_a_link_of_the_site_leads_to_one_of_its_pages_or_to_a_file_that_it_takes_along() -> None:
    """Sphinx takes a link to a page outside docs/ for one that is missing, and `make docs` fails."""
    for page in (ROOT / "docs").glob("*.md"):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            if "://" in target:
                continue
            file = (page.parent / target).resolve()
            assert file.exists(), f"{page.name}: {target}"
            assert file.suffix != ".md" or file.parent == ROOT / "docs", f"{page.name}: {target} is no page of the site"


def test_no_documented_command_imports_from_the_folder_it_is_typed_in() -> None:
    """There may lie somebody's pictures, and a yaml.py."""
    code = [
        path for room in ("src", "examples") for path in (ROOT / room).rglob("*.*") if path.suffix in (".py", ".md")
    ]
    found = []
    for page in [*PAGES, *code, ROOT / "Makefile", ROOT / "Dockerfile"]:
        text = " ".join(page.read_text().split())
        found += re.findall(r"(?:\S+ )?(?:torchrun|python\S*)(?: -\S+(?: [A-Z\d]+)?)*? -m headstart\b", text)
    assert len(found) >= 4
    assert [command for command in found if not ("PYTHONSAFEPATH=1 " in command or " -P " in command)] == []


@pytest.mark.parametrize("quick", [True, False])
def test_the_commands_for_a_borrowed_gpu_are_some(quick: bool) -> None:
    """Device time is short: none of it is to go to a mistyped option."""
    steps = steps_of("cuda", quick, Path("runs"), "cifar10:.")
    assert len({step.name for step in steps}) == len(steps) > 25
    for step in steps:
        line = Line("benchmarks/gpu.py", " ".join(step.command[1:]))
        match step.command[1:]:
            case ["-P", "-m", "headstart", *words]:
                _parse(words, line)
            case ["-m", "benchmarks", *words]:
                _check_script(["-m", "benchmarks", *words], line)
            case ["-m", "pytest", *words]:
                assert (ROOT / "tests/device").exists()
                assert "gpu" in words


def _check_script(words: list[str], line: Line) -> None:
    """A script of the repository is there and knows every option that is named."""
    paths = [f"{words[1].replace('.', '/')}/{words[2]}.py"] if words[0] == "-m" else [words[0]]
    text = (ROOT / paths[0]).read_text() + (ROOT / "benchmarks/common.py").read_text()
    for word in words[1:]:
        option = word.removeprefix("--").replace("-", "_")
        assert not word.startswith("--") or re.search(rf"\b{option}\b|{word}\b", text), line


def _parse(words: list[str], line: Line) -> None:
    if words[0] in ("COMMAND", "--help", "--version", "--print-completion"):
        return
    two = " ".join(words[:2])
    name = two if two in COMMANDS else words[0]
    assert name in COMMANDS, line
    rest = words[len(name.split()) :]
    if not rest or rest == ["--help"]:
        return
    command = COMMANDS[name]
    begin: dict[str, Any] = {"options": Config()} if command is pretrain else {}
    try:
        defaults.parsed(command, rest, f"headstart {name}", **begin)
    except InputError as error:
        if not line.in_sentence or f"{name} needs " not in str(error):
            pytest.fail(f"{line.page}: `{line.text}` is refused: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_imports_of_documented_python_exist(page: Path) -> None:
    for language, text in _blocks(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headstart"):
                module = importlib.import_module(str(node.module))
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                missing = [name for name in missing if importlib.util.find_spec(f"{node.module}.{name}") is None]
                assert missing == [], f"{page.name}: {node.module} has no {missing}"


SMALL = {
    "pretrain": "--backbone.name resnet18 --data.size 32 --autoencoder.epochs 1 --contrastive.epochs 1",
    "finetune": "--epochs 1 --lr 0.001 --layer-decay 1 --no-compare",
}
"""What a command of the README gets besides, so that it is over in seconds."""


def can_be_pasted(last: str) -> None:
    """What to do next is a sentence, or a command that is taken as it stands: without a name to be filled in."""
    words = shlex.split(last.removeprefix("next: ")) if last.startswith("next: headstart ") else []
    assert not re.search(r"\b(RUN|DATA|DIR|FILE|PICTURES?|STUDY|SHEET)\b|\.\.\.", last), last
    if words:
        with pytest.raises(SystemExit) as stop:
            main([*words[1:], "--help"])
        assert not stop.value.code, last


def test_the_readmes_commands_for_ones_own_pictures_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In their order, in a folder with `photos/` and `labelled/`; each ends with what to do next, in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    block = next(text for _, text in _blocks(ROOT / "README.md") if text.startswith("headstart check photos/"))
    (tmp_path / "labelled").symlink_to(photos)
    (tmp_path / "photos").mkdir()
    pictures = sorted(photos.rglob("*.png"))
    for number, picture in enumerate(pictures):
        (tmp_path / "photos" / f"IMG_{number + 30:04}.jpg").write_bytes(picture.read_bytes())
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        words = Line("README.md", line).words[1:]
        threads = ["--threads", "1"]
        with pytest.raises(SystemExit) as stop:
            main([*words, *shlex.split(SMALL.get(words[0], "")), *threads])
        said = capsys.readouterr()
        assert not stop.value.code, f"{line}: {said.err}"
        before, last = said.out.splitlines()[-2:]
        assert last.startswith("next: "), line
        assert len(before) <= 80
        can_be_pasted(last)
    assert {"alike.png", "labels.csv", "backbone.safetensors"} <= {path.name for path in tmp_path.iterdir()}
