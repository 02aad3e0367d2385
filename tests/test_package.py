"""What strangers install: one version, whole metadata, a light import, nothing needed beside the package."""

import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import headstart
from headstart.cli.commands import COMMANDS, main
from headstart.cli.completion import SHELLS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

HEAVY = ("torch", "numpy", "pandas", "pydantic", "rich", "sklearn", "PIL", "tyro")


def test_there_is_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"headstart {headstart.__version__}\n"
    said = [path for path in (ROOT / "src").rglob("*.py") if re.search(r'__version__ = "', path.read_text())]
    assert [path.name for path in said] == ["version.py"]
    assert f"\nversion: {headstart.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = f"import sys, headstart; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_metadata_are_whole() -> None:
    assert {"description", "readme", "license", "authors", "keywords", "requires-python"} <= PROJECT.keys()
    oldest = int(PROJECT["requires-python"].rpartition(".")[2])
    versions = [line.rpartition(".")[2] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert int(versions[0]) == oldest


def test_the_table_of_extras_is_whole() -> None:
    """Every extra that a user may want, with the packages it brings as pyproject.toml has them."""
    page = (ROOT / "docs" / "index.md").read_text()
    told = {
        name: brings.split(", ") for name, brings in re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", page, re.MULTILINE)
    }
    extras = PROJECT["optional-dependencies"]
    packages = {name: [re.split("[>\\[]", one)[0] for one in needs] for name, needs in extras.items()}
    packages["loggers"] = [package for name in ("tensorboard", "mlflow", "wandb") for package in packages[name]]
    for own in ("test", "docs", "dist"):
        del packages[own]
        assert f"`{own}`" in page
    assert told == packages


def test_every_file_that_is_read_at_run_time_is_in_the_package() -> None:
    """setuptools packs what `package-data` names; a new kind of file has to be named there too."""
    package = ROOT / "src" / "headstart"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["headstart"]
    packed = {path for pattern in settings for path in package.glob(pattern)}
    there = {p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert there == packed
    assert resources.files("headstart").joinpath("py.typed").is_file()


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert not stop.value.code
    script = capsys.readouterr().out
    assert all(word in script for words in COMMANDS for word in words.split())
    assert "autoencoder" in script


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="bash completes")
def test_bash_completes_an_option_of_a_command_of_two_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--print-completion", "bash"])
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    program = (
        f"source {script}; COMP_WORDS=(headstart study run --exec); COMP_CWORD=3; _tyro_headstart; "
        'echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(["/bin/bash", "-c", program], capture_output=True, text=True, env={"PATH": path}, check=True)
    assert done.stdout.strip() == "--executor"


def test_completion_for_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", "cmd"])
    assert stop.value.code == 2
    assert "it must be one of bash, zsh, fish" in capsys.readouterr().err
