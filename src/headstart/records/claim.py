"""Who works on a folder: a claim is a small file made by one process alone. Claims import no torch.

It works on a shared file system, and the claim of a holder that has died is taken over. On the holder's own machine its
process id tells whether it lives; elsewhere the file's age does, measured by the file system's clock.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart.records import files
from headstart.records.errors import InputError
from headstart.records.files import read
from headstart.records.schema import HOLDER
from headstart.records.validation import problem

BEAT_SECONDS = 15.0
"""How often a holder shows that it lives."""
STALE_SECONDS = 120.0
"""A claim from another machine that has not been renewed for so long has lost its holder."""


BREAKING_SECONDS = 60.0


class Claim:
    """The right to work on a folder, held by one process at a time: FOLDER/.claim, or another name for a part of it."""

    def __init__(self, folder: Path, name: str = ".claim", *, make: bool = True) -> None:
        self.path, self.make = folder / name, make
        self.token = ""

    @contextlib.contextmanager
    def held(self, lost: Callable[[], None] = lambda: None, **about: Any) -> Iterator[bool]:
        """Try to take it, for the time of the context; False where another process has it.

        `lost` is called where it was taken over: this process, or its machine, stood still for so long that others had
        to believe it dead.
        """
        if not self._take(about):
            yield False
            return
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(stop, lost), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            stop.set()
            beat.join()
            if (self._read() or {}).get("token") == self.token:
                self.path.unlink(missing_ok=True)

    def holder(self) -> dict[str, Any] | None:
        """Who has it: host, pid, and what it said of itself; None where nobody alive does."""
        holder = self._read()
        return None if holder is None or self._is_stale(holder) else holder

    def renewed(self) -> float | None:
        """When a holder on another machine last showed that it lives; None for one on this machine, or none."""
        holder = self._read()
        if holder is None or self._is_near(holder):
            return None
        with contextlib.suppress(OSError):
            return self.path.stat().st_mtime
        return None

    def _take(self, about: Mapping[str, Any]) -> bool:
        self.token = uuid.uuid4().hex
        me = {"token": self.token, **identity(), **about}
        if self.make:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        # Written whole under another name first: a link either appears complete or not at all, on any file system.
        mine = self.path.with_name(f".claim.{self.token}")
        mine.write_text(json.dumps(me), encoding="utf-8")
        try:
            if self._link(mine, self.path):
                return True
            holder = self._read()
            if holder is not None and not self._is_stale(holder):
                return False
            self._break(holder, mine)
            return self._link(mine, self.path)
        finally:
            mine.unlink(missing_ok=True)

    @staticmethod
    def _link(mine: Path, name: Path) -> bool:
        """Give my file the name, if nobody has it."""
        try:
            os.link(mine, name)
        except FileExistsError:
            return False
        except OSError:  # no hard links here: exclusive creation, which is atomic but may be seen empty for a moment
            try:
                with open(name, "x", encoding="utf-8") as file:
                    file.write(mine.read_text(encoding="utf-8"))
            except FileExistsError:
                return False
        return True

    def _break(self, holder: Mapping[str, Any] | None, mine: Path) -> None:
        """Take away the claim of a dead holder, and only that one: one process at a time may, and it looks again."""
        breaking = self.path.with_name(".claim.breaking")
        with contextlib.suppress(OSError):
            if time.time() - breaking.stat().st_mtime > BREAKING_SECONDS:
                breaking.unlink()  # its process died between two system calls
        if not self._link(mine, breaking):
            return
        try:
            if self._read() == holder:
                self.path.unlink(missing_ok=True)
        finally:
            breaking.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        """What the claim says; None where there is none, or only half of one."""
        try:
            holder = files.parse_json(read(self.path))
        except (OSError, ValueError, RecursionError):
            return None
        return None if problem(holder, HOLDER) else holder

    @staticmethod
    def _is_near(holder: Mapping[str, Any]) -> bool:
        """Whether its process id means something here."""
        me = identity()
        return bool(holder.get("host") == me["host"] and holder.get("space") == me["space"])

    def _is_stale(self, holder: Mapping[str, Any]) -> bool:
        if self._is_near(holder):
            return _started(int(holder["pid"])) != holder.get("started")
        with contextlib.suppress(FileNotFoundError):
            return self._now() - self.path.stat().st_mtime > STALE_SECONDS
        return False

    def _now(self) -> float:
        """By the file system's clock; by this machine's where the folder may only be read.

        Raises FileNotFoundError where the folder is gone.
        """
        now = self.path.with_name(f".now.{uuid.uuid4().hex}")
        try:
            now.touch()
            return now.stat().st_mtime
        except FileNotFoundError:
            raise
        except OSError:
            return time.time()
        finally:
            with contextlib.suppress(OSError):
                now.unlink(missing_ok=True)

    def _beat(self, stop: threading.Event, lost: Callable[[], None]) -> None:
        while not stop.wait(BEAT_SECONDS):
            if (self._read() or {}).get("token", self.token) != self.token:
                lost()
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)


@contextlib.contextmanager
def owned(folder: Path, doing: str, lost: Callable[[], None] = lambda: None, name: str = ".claim") -> Iterator[None]:
    """Be the only one that works on a run folder, for the time of the context; `lost` as for `Claim.held`.

    What was looked at before may be another's work by now: whoever owns it looks again.

    Raises InputError where another process is: who, where, since when and what it is `doing`.
    """
    claim = Claim(folder, name)
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    with claim.held(lost, doing=doing, since=since) as mine:
        if not mine:
            holder = claim.holder() or {}
            who = f"process {holder.get('pid', 'of an unknown number')} on {holder.get('host', 'an unknown machine')}"
            began = f" since {holder['since']}" if "since" in holder else ""
            raise InputError(
                f"{folder} is in use: {who} has been at work in it{began} ({holder.get('doing', 'a study')}); wait for "
                "it to end, or give another --out"
            )
        yield


@contextlib.contextmanager
def alone(out: Path, name: str = ".claim", *, make: bool = True) -> Iterator[None]:
    """Wait until no other process changes the study in `out`, and keep others from it for the time of the context.

    With a `name` of their own, so do those who write files that belong together, such as a report's. Unless `make`, a
    folder that is gone is not made again.
    """
    while True:
        with Claim(out, name, make=make).held() as mine:
            if mine:
                yield
                return
        time.sleep(0.05)


def identity() -> dict[str, Any]:
    """Which process this is, so that another one can tell whether it still lives."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "space": _space(), "pid": pid, "started": _started(pid)}


def _space() -> str:
    """Where process ids mean the same: a boot and, in containers, a namespace."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process began, which tells it from a later one of the same id; None where there is none (or a zombie)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if after_name[0] in "ZX" else after_name[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:  # no /proc on this system
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
