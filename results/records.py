"""The committed records of studies: take them over from a finished study, and recompute everything said from them.

    python results/records.py collect runs/controls results/digits/controls
    python results/records.py add digits/controls --seeds 6 7
    python results/records.py check

`collect` copies each run's config.yaml, result.json and metrics.jsonl (no weights), writes the report by the probe that
decides, and the sentences by every other; runs that are there already stay. `add` trains further seeds of a committed
study and collects them; options of `headstart study run` may follow (--data-root DIR, --threads 1, --set NAME=VALUE).
Both write the pages' tables and quotations anew (page.py). `check` does all this again in a temporary folder and
compares.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import page
import recorded
import yaml

from headstart import report
from headstart.records.errors import InputError
from headstart.records.files import read_json, read_yaml, write, write_json
from headstart.records.text import visible
from headstart.report import answer, frame, tables
from headstart.report.settings import counted

HERE = Path(__file__).parent
RECORD = ("config.yaml", "result.json", "metrics.jsonl")
SEED = re.compile(r"seed=\d+$")
"""At the end of a run's name."""
STUDY = "study.yaml"
"""What a folder of records is known by."""


def collect(study: Path, out: Path) -> None:
    """Copy the records of a study's finished runs to `out`, and write what they say.

    Paths below the current folder become relative to it; of other pictures and weights the name alone stays. Where
    `out` holds the same study, its runs stay, and the seeds of both are planned. Raises InputError, before anything is
    written, for a folder without finished runs, for probed runs of a study that names none of their probes, for runs
    that are in `out` with another result or differ from those of other seeds there in a setting, and for a study that
    leaves out what `out` plans.
    """
    found = frame.read(study)
    probed = any(result.get("probes") for result in found.results.values())
    decides = found.settings.get("decides")
    if probed and decides != found.probe:
        raise InputError(f"the runs of {study} are probed; its study.yaml must say which of their probes `decides`")
    finished = sorted((study / "runs").glob("*/result.json"))
    kept = read_yaml(out / STUDY) if (out / STUDY).exists() else {}
    if kept.get("decides", decides) != decides:
        raise InputError(f"{study} says {decides} decides, and {out} {kept['decides']}")
    for again in _trained_again(out, finished):
        raise InputError(
            f"{again} is in {out} already, with another result; take it out of {study}: none is to be lost"
        )
    for unlike in _unlike(out, finished):
        raise InputError(unlike)
    for lost in _lost(kept, found.settings):
        raise InputError(
            f"{study} does not plan {lost}, which {out} does; plan it as the one there, with its own seeds"
        )
    planned = _joined(kept, found.settings)
    for path in (study / STUDY, *(result.with_name(name) for result in finished for name in RECORD)):
        write(out / path.relative_to(study), _placeless(path))
    if planned:
        write(out / STUDY, planned)
    for failed in (study / "runs").glob("*/failed.json"):
        if not failed.with_name("result.json").exists():
            write_json(out / failed.relative_to(study), {"reason": read_json(failed).get("reason", "")})
    say(frame.read(out))


def _placeless(path: Path) -> str:
    """A record without the folders of the machine that wrote it."""
    text = re.sub(r"(?m)^  folder: .*\n", "", path.read_text(encoding="utf-8"))  # where the command was given
    text = text.replace(f"{Path.cwd()}/", "")
    return re.sub(r"(?m)^(\s*(?:- |weights: ))/(?:.*/)?([^/\n]+)$", r"\1\2", text)


def _trained_again(kept: Path, finished: Sequence[Path]) -> Iterator[str]:
    """Which runs are among those kept with another result."""
    for path in finished:
        before = kept / "runs" / path.parent.name / path.name
        if before.exists() and before.read_text(encoding="utf-8") != _placeless(path):
            yield path.parent.name


def _unlike(kept: Path, finished: Sequence[Path]) -> Iterator[str]:
    """In which setting a run differs from the same of another seed among those kept."""
    there = {SEED.sub("", path.parent.name): path for path in (kept / "runs").glob("*/config.yaml")}
    for path in (result.with_name("config.yaml") for result in finished if SEED.search(result.parent.name)):
        if before := there.get(SEED.sub("", path.parent.name)):
            one, other = counted(read_yaml(before)), counted(read_yaml(path))
            for name in (name for name in one if other.get(name, one[name]) != one[name]):
                yield (
                    f"{path.parent.name} has {name} {other[name]}, and {before.parent.name} {one[name]}; give "
                    f"--set {name}={one[name]}, and another --out"
                )


def _lost(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """What the earlier study.yaml plans and the later one does not: sets, and values of factors."""
    yield from (name for name in one.get("data") or () if name not in (other.get("data") or ()))
    left = other.get("factors") or {}
    for factor, values in (one.get("factors") or {}).items():
        yield from (f"{factor} {value}" for value in values if value not in left.get(factor, ()))


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The earlier study.yaml with the seeds of both, where they cross the same factors; else empty."""
    if not one or any(one.get(name) != other.get(name) for name in ("name", "factors")):
        return ""
    seeds = [*one["seeds"], *(seed for seed in other["seeds"] if seed not in one["seeds"])]
    return yaml.safe_dump({**one, "seeds": seeds}, sort_keys=False, allow_unicode=True)


def add(name: str, seeds: Sequence[str], out: Path, options: Sequence[str]) -> int:
    """Train further seeds of the committed study `name` in `out`, and collect them; the exit code of the training."""
    kept = HERE / name
    if not (kept / STUDY).exists():
        raise InputError(f"results/{name} is no committed study; give one such as digits/controls")
    code = trained(
        [str(kept.with_suffix(".yaml")), "--seeds", *seeds, "--out", str(out), "--keep", "records", *options]
    )
    if code == 0:
        collect(out, kept)
    return code


def trained(arguments: Sequence[str]) -> int:
    """`headstart study run` in a process of its own; 75 where it was stopped, and goes on by the same command."""
    return subprocess.run([sys.executable, "-P", "-m", "headstart", "study", "run", *arguments]).returncode


def say(records: frame.Records) -> None:
    """Write the report and the tables by the probe that decides, and answers/PROBE.md by each probe."""
    study = records.path
    report.write(records)
    for probe in sorted({name for result in records.trained.values() for name in result["probes"]}):
        found = answer.answer(frame.judged(records, probe))
        write(study / "answers" / f"{probe}.md", visible(tables.sentences(found)))
    if (study / "figures" / "comparisons.csv").exists():  # a study of one head compares none
        shutil.copy(study / "figures" / "comparisons.csv", study / "tables" / "comparisons.csv")
    shutil.rmtree(study / "figures", ignore_errors=True)  # the page holds them, and `headstart report` draws them again


def said(study: Path) -> list[Path]:
    """The files that `say` wrote, but for the page."""
    return [path for name in ("tables", "answers") for path in sorted((study / name).glob("*"))]


def differences(study: Path) -> Iterator[str]:
    """What `study` says that its records do not, or the other way round."""
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary)
        say(replace(recorded.read(study), path=again))
        names = {path.relative_to(root).as_posix() for root in (study, again) for path in said(root)}
        for name in sorted(names):
            if wrong := page.differs(study / name, again / name):
                yield f"{name} {wrong}"


def misquoted() -> list[str]:
    """Sentences that the pages quote (`> ...`) and that stand in no study's answers."""
    text = "".join(one.read_text(encoding="utf-8") for one in page.pages(HERE))
    said = {
        plain(line)
        for path in [*HERE.rglob("answers/*.md"), *HERE.rglob("tables/answer.md")]
        for line in path.read_text("utf-8").splitlines()
    }
    quotes = [plain(line.removeprefix(">").strip()) for line in text.splitlines() if line.startswith("> ")]
    return [quote for quote in quotes if quote not in said]


def plain(line: str) -> str:
    """A sentence without its list mark, emphasis and escapes."""
    return line.removeprefix("- ").replace("**", "").replace("\\", "")


def check() -> int:
    """Recompute every study under results/, and look up what the pages quote; the number of differences."""
    found = 0
    recorded.forget()
    for study in sorted(path.parent for path in HERE.rglob(STUDY)):
        runs = len(list((study / "runs").glob("*/result.json")))
        wrong = list(differences(study))
        found += len(wrong)
        print(f"{study.relative_to(HERE)}: {runs} records, {'; '.join(wrong) or 'all tables and sentences follow'}")
    for quote in misquoted():
        print(f"quoted, and said by no study: {quote}")
        found += 1
    for block in page.stale(HERE):
        print(f"other lines than the records' in {block} (python results/page.py writes them)")
        found += 1
    return found


def main() -> int:
    """The commands above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    taking = commands.add_parser("collect")
    taking.add_argument("study", type=Path)
    taking.add_argument("out", type=Path)
    adding = commands.add_parser("add")
    adding.add_argument("study", help="its name below results/")
    adding.add_argument("--seeds", nargs="+", required=True)
    adding.add_argument("--out", type=Path, help="where it trains; default runs/STUDY")
    commands.add_parser("check")
    options, rest = parser.parse_known_args()
    if rest and options.command != "add":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if options.command == "check":
            return min(1, check())
        code = 0
        if options.command == "add":
            out = options.out or Path("runs") / options.study.replace("/", "-")
            code = add(options.study, options.seeds, out, rest)
        else:
            collect(options.study, options.out)
        page.rewrite(HERE)
        return code
    except InputError as error:
        print(f"records: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    sys.exit(main())
