"""Print a constraints file of the oldest versions that a pyproject.toml declares: `python oldest.py pyproject.toml`."""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def oldest(project: Mapping[str, Any]) -> Iterator[str]:
    """`name==version` for every requirement `name>=version`, extras included."""
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in dict.fromkeys(line for group in groups for line in group):
        if found := re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement):
            yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    print("\n".join(oldest(tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"])))
