"""How what is chosen by name is registered: a choice, and the names of one kind in reading order."""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from headstart.records.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Something that a user chooses by name.

    Attributes:
        name: as options and files have it: small letters, digits, `_` and `-`.
        help: one line.
        label: as figures, tables and sentences have it; the name where empty.
        make: what implements it, or where: `"module:function"`. What it is called with is the registry's own.
        origin: the module of a user's that brought it, which whoever opens a run made with it has to name.
    """

    name: str
    help: str
    label: str = ""
    make: Callable[..., Any] | str = ""
    origin: str = ""

    @property
    def shown(self) -> str:
        """How people read it."""
        return self.label or self.name

    def made(self) -> Any:
        """What implements it, imported now."""
        if not isinstance(self.make, str):
            return self.make
        module, _, name = self.make.partition(":")
        return getattr(importlib.import_module(module), name)


C = TypeVar("C", bound=Choice)


def own(name: str, help: str, build: Callable[..., Any], make: Callable[..., Any]) -> Choice:
    """A choice that a user registers: `build` is theirs, `make` calls it as the registry's own choices are called."""
    origin = getattr(build, "__module__", "")
    return Choice(name=name, help=help or "one of your own", make=make, origin="" if origin == "__main__" else origin)


class _PlainText(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, str)


class Chosen(str, metaclass=_PlainText):
    """The type of a setting that holds a name of `registry`: `init: HeadInitName`. A value is a plain str."""

    registry: ClassVar["Names[Any]"]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # noqa: PLC0415 - only settings need it

        return core_schema.no_info_after_validator_function(cls._known, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(cls.registry)}

    @classmethod
    def _known(cls, name: str) -> str:
        if name not in cls.registry:
            raise ValueError(cls.registry.right)
        return name


class Names(Mapping[str, C], Generic[C]):
    """The choices of one kind: a mapping from name to choice, in reading order.

    Args:
        what: the option that chooses, such as `head.init`; it stands in error sentences.
    """

    def __init__(self, what: str, *choices: C) -> None:
        self.what = what
        self.type: Any = _PlainText("Chosen", (Chosen,), {"registry": self})
        self._choices: dict[str, C] = {}
        for choice in choices:
            self.register(choice)

    def register(self, choice: C) -> None:
        """Add a choice; raises InputError for a name that is taken, or that options and files cannot hold."""
        if not isinstance(choice.name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*", choice.name):
            raise InputError(
                f"{self.what} {choice.name!r} cannot be registered; a name is small letters, digits, _ and -"
            )
        if choice.name in self._choices:
            raise InputError(f"{self.what} {choice.name} is registered already; give another name")
        self._choices[choice.name] = choice

    @property
    def right(self) -> str:
        """What a value must be, for a sentence."""
        return f"one of {', '.join(self)}"

    def known(self, name: str) -> C:
        """The choice of that name; raises InputError naming the option, the value and what there is."""
        if not isinstance(name, str) or name not in self._choices:
            raise InputError(f"{self.what} is {name!r}; it must be {self.right}")
        return self._choices[name]

    def shown(self, name: str) -> str:
        """How people read a name; a name that a record holds and nobody registered is shown as it is."""
        return self._choices[name].shown if name in self._choices else name

    def place(self, name: str) -> int:
        """Where a name stands in reading order; unregistered ones stand last."""
        return list(self).index(name) if name in self._choices else len(self)

    def lines(self) -> str:
        """`name: help`, a line each, for an option's help."""
        return "\n".join(f"{name}: {choice.help}" for name, choice in self.items())

    def __getitem__(self, name: str) -> C:
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)
