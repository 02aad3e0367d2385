"""What the parser refuses, in one sentence: what was typed, where, and what would be right.

Comes in: what tyro says, in a box that names types of Python. Goes out: a sentence; None for what is not known here,
which is then shown as it is.
"""

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from headstart.records.validation import nearest

BOX = re.compile(r"[│╭╮╰╯]|─{2,}")
FLAGS = ("yes", "no", "true", "false", "on", "off")
PIECES = {
    "INT": ("a whole number", "whole numbers"),
    "FLOAT": ("a number", "numbers"),
    "PATH": ("a path", "paths"),
    "STR": ("text", "texts"),
}
"""What tyro calls a value: one of them, and several, in the words of a person."""


def sentence(said: str, argv: Sequence[str], program: str, known: Callable[[], Sequence[str]]) -> str | None:
    """What is wrong with a command, of a box of tyro's.

    argv: its words; program: what stands before them; known: all of its options, asked where one is not among them.
    """
    command = program.removeprefix("headstart ")
    lines = [BOX.sub(" ", line).rstrip()[1:] for line in said.splitlines()]  # without the frame
    flat = " ".join(" ".join(lines).split())
    if found := re.search(r"Unrecognized options: (.+?) (?:For full|Perhaps|Arguments similar)", flat):
        return _unknown(re.split(", | ", found[1]), argv, command, known)
    if found := re.search(r"invalid choice '(.*?)' for argument '(.+?)'\. Expected one of \((.+?)\)\.", flat):
        choices = [choice for choice in re.findall(r"'([^']*)'", found[3]) if choice != "None"]
        return f"{found[2]} is {found[1]!r}{nearest(found[1], choices)}; it must be {_either(choices)}"
    if found := re.search(r"Missing value for argument '(.+?)'\. Expected (\d+) values", flat):
        return f"{found[1].split('/')[0]} needs {'a value' if found[2] == '1' else f'{found[2]} values'}"
    if "Missing from " in flat:  # each in a line of its own, its help indented further
        own = itertools.takewhile(lambda line: "For full" not in line, lines)
        names = [line.strip().removesuffix(" [STR [STR ...]]") for line in own if re.match(r" {5}\S", line)]
        return f"{command} needs {' and '.join(names)}; `{program} --help` tells what that is" if names else None
    if found := re.search(r"Error parsing (\S+): (.+?) For full", flat):
        forms = itertools.dropwhile(lambda line: "Argument helptext:" not in line, lines)
        form = next(itertools.islice(forms, 1, None), "").strip()
        return _value(found[1], found[2], form, argv)
    return None


def _unknown(words: list[str], argv: Sequence[str], command: str, known: Callable[[], Sequence[str]]) -> str:
    """An option that there is not, or a word that no option takes."""
    if word := next((word.partition("=")[0] for word in words if re.match("-+[a-z]", word)), None):
        close = _meant(word, known())
        meant = f" (perhaps you meant {_either(close)})" if close else ""
        return f"{command} has no option {word}{meant}; `headstart {command} --help` lists them"
    for option, value in itertools.pairwise(argv):
        if option.startswith("--") and value.lower() in FLAGS and value in words:
            section, dot, name = option.removeprefix("--").rpartition(".")
            no = f"--{section}{dot}no-{name.removeprefix('no-')}"
            return f"{option} takes no value, and {value!r} stands behind it: {option} is yes, {no} is no"
    return f"{words[0]!r} is a word too many; `headstart {command} --help` tells what it takes"


def _meant(word: str, known: Sequence[str]) -> list[str]:
    """The options that may be meant: those of its name where its section was left out, else the nearest one."""
    section, dot, name = word.rpartition(".")
    same = [option for option in known if option.endswith(f".{word.lstrip('-')}")]
    beside = {
        option.removeprefix(section + dot): option for option in known if dot and option.startswith(section + dot)
    }
    if same or not beside:
        return same or difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    return [beside[close] for close in difflib.get_close_matches(name, beside, n=1, cutoff=0.75)]


def _value(name: str, why: str, form: str, argv: Sequence[str]) -> str | None:
    """A value of another type than its option's, or what the settings themselves say of it."""
    if not name.startswith("-"):
        return why
    names = name.split("/")
    form = form.rpartition(f"{names[-1]} ")[2]
    typed = " ".join(_given(names, argv))
    if not (form and typed):
        return None
    right = " or ".join(_pieces(form))
    hint = ""
    if re.fullmatch(r"[-+]?\d+,\d+", typed) and "FLOAT" in form:
        hint = f", with a point: {typed.replace(',', '.')}"
    elif "," in typed and "..." in form:
        hint = f", with blanks between them: {' '.join(typed.replace(',', ' ').split())}"
    return f"{names[0]} is {typed!r}; it must be {right}{hint}"


def _pieces(form: str) -> Iterator[str]:
    """`{None}|FLOAT` as `a number`: what may be left out need not be said."""
    for piece in form.removeprefix("{None}|").split("|"):
        kinds = re.findall(r"INT|FLOAT|PATH|STR", piece)
        if not kinds:
            yield _either(re.split(", ?", piece.strip("{}")))
        elif "..." in piece:
            yield PIECES[kinds[0]][1]
        else:
            yield PIECES[kinds[0]][0] if len(kinds) == 1 else f"{len(kinds)} {PIECES[kinds[0]][1]}"


def _given(names: Sequence[str], argv: Sequence[str]) -> list[str]:
    """What stands behind an option where it is given last, up to the next option."""
    found: list[str] = []
    inside = False
    for word in argv:
        option, equals, value = word.partition("=")
        if option in names:
            found, inside = [value] * bool(equals), True
        elif re.match("--?[a-z]", word):
            inside = False
        elif inside:
            found.append(word)
    return found


def _either(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
