"""What lies in a zip, tar or shard, listed once: a list of many pictures is kept beside the decoded ones.

Comes in: a file of pictures. Goes out: what `packed` finds in it, from the list of an earlier call as long as the file
and the rules of this room are as they were then. A list is columns in JSON behind its checksum; nothing in it can
execute, and one that is damaged or cannot be written is made anew.
"""

import functools
import hashlib
import json
import os
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.data import cache
from headstart.data.packed import Member, in_packed
from headstart.data.source import Entry, Found
from headstart.records.config import DataConfig
from headstart.records.errors import RunError
from headstart.records.files import write

MANY = 1000
"""Pictures; fewer are listed as fast as a list of them is read."""


def contents(path: Path, data: DataConfig) -> Found:
    """The pictures of such a file, as `in_packed` says. Raises InputError naming it, and what in it is missing."""
    folder = cache.folder(data)[0] if path.suffix.lower() in (".zip", ".tar") else None
    if folder is None:
        return in_packed(path, data.labels)
    whole = os.path.abspath(path)
    own = hashlib.sha256(f"{whole}\0{data.labels}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
    kept, key = folder / f"{own}.contents", [_rules(), cache.known(whole)]
    found = _read(kept, key, path)
    if found is None:
        found = in_packed(path, data.labels)
        if len(found.entries) >= MANY:
            with suppress(RunError):  # a full disk, or another user's file: it is listed again next time
                write(kept, _packed(found, key))
    return found


@functools.cache
def _rules() -> str:
    """A name of the code that says what is listed, and as what."""
    code = hashlib.sha256()
    for module in sorted(Path(__file__).parent.glob("*.py")):
        code.update(module.read_bytes())
    return code.hexdigest()


def _packed(found: Found, key: list[str]) -> bytes:
    columns: dict[str, list[Any]] = {"names": [], "labels": [], "official": [], "members": []}
    for entry in found.entries:
        member = entry.path
        assert isinstance(member, Member)
        columns["names"].append(entry.name)
        columns["labels"].append(entry.label)
        columns["official"].append(entry.official)
        columns["members"].append([member.offset, member.stored, member.size, member.deflated, member.crc])
    said = {"skipped": found.skipped, "notes": found.notes, "others": found.others}
    text = json.dumps({"key": key, **columns, **said}).encode()
    return b"%08x\n" % zlib.crc32(text) + text


def _read(kept: Path, key: list[str], path: Path) -> Found | None:
    """The list that was kept; None where there is none, or it is damaged or out of date."""
    try:
        crc, _, text = kept.read_bytes().partition(b"\n")
        if int(crc, 16) != zlib.crc32(text):
            return None
        said = json.loads(text)
    except (OSError, ValueError):
        return None
    if said["key"] != key:
        return None
    where = str(path)
    rows = zip(said["names"], said["members"], said["labels"], said["official"], strict=True)
    entries = [Entry(name, Member(where, *member), label, official) for name, member, label, official in rows]
    skipped = [(name, reason) for name, reason in said["skipped"]]
    return Found(entries, skipped, said["notes"], Counter(said["others"]), [path])
