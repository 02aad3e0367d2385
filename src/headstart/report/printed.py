"""The numbers printed in the paper's Tables 2 to 6, in the layout of the paper, and a parser of that layout."""

from collections.abc import Iterator
from typing import Any

TABLE_2 = """
Imagenette    256  256  Sigmoid  Sigmoid  128  128  False  False  89.0  88.7
STL10         256  256  Sigmoid  Sigmoid  128  128  False  True   72.3  69.4
CIFAR10       128  256  Tanh     Sigmoid  128   64  False  False  66.5  64.9
FGVCAircraft  256  256  ReLU     ReLU     128   32  True   False  25.7  24.0
CIFAR100      512  512  SiLU     ReLU      64   64  False  False  23.6  21.5
"""
"""Set; then, each for ae and mlp: dim(g), activation, dim(z), normalized, Acc@1."""

SETS = ("Imagenette", "STL10", "CIFAR10", "FGVCAircraft", "CIFAR100")
"""Columns of the tables below: each set twice, for ae and mlp (Table 6: max and avg)."""

MEAN_GAIN, LARGEST_GAIN = 1.74, 2.9
"""Section 4: by how many points Table 2's ae peaks lie above its mlp peaks, on average and at most."""

TABLE_3 = {
    True: """
minimum    41.9  68.4  42.6  44.4  56.8  44.6  20.4  20.1   8.3   3.2
maximum    88.5  88.5  70.8  69.4  66.3  64.1  25.7  23.9  23.3  21.5
average    83.6  83.1  64.4  59.7  62.6  58.5  23.4  22.1  19.0  16.2
range      46.6  20.1  28.2  24.9   9.4  19.5   5.3   3.8  15.0  18.3
midspread   3.2   3.3   3.8   6.6   3.3   3.8   1.7   1.0   3.1   4.7
std. dev.   8.0   4.3   6.8   5.6   2.4   3.6   1.2   0.9   3.1   4.2
""",
    False: """
minimum    66.9  62.5  39.1  32.3  44.4  48.8  20.9  20.6   5.6   3.2
maximum    89.0  88.7  72.3  67.8  66.5  64.9  25.2  24.0  23.6  21.5
average    85.0  82.8  65.1  58.8  61.3  58.7  23.0  22.3  19.4  16.6
range      22.2  26.1  33.1  35.5  22.2  16.1   4.4   3.5  18.0  18.4
midspread   2.2   3.2   4.8  10.2   2.9   5.5   1.4   1.1   2.6   4.0
std. dev.   3.8   6.1   6.0   8.0   4.4   4.0   1.0   0.8   3.1   4.1
""",
}
"""With (True) and without Z-score normalization."""

TABLE_4 = """
hidden_dim=128   84.8  82.3  67.0  59.1  60.9  57.8  23.5  22.2  19.4  16.2
hidden_dim=256   83.4  82.1  66.9  58.5  62.2  59.4  23.2  22.4  18.4  17.5
hidden_dim=512   84.8  84.5  60.4  60.0  62.8  58.5  22.9  22.1  19.7  15.5
output_dim=32    82.1  81.8  61.8  56.4  60.9  55.7  22.8  22.2  18.2  15.5
output_dim=64    85.6  81.9  66.1  58.0  62.7  60.3  23.2  22.5  19.6  16.1
output_dim=128   85.2  85.1  66.4  63.3  62.3  59.8  23.5  21.9  19.8  17.6
"""

TABLE_5 = """
ReLU     85.0  84.0  64.5  59.9  62.9  59.3  23.0  22.0  20.1  19.3
SiLU     85.3  84.5  64.7  59.7  61.1  59.1  23.2  22.1  19.6  18.6
Sigmoid  81.8  84.7  64.6  58.5  61.2  59.4  23.1  22.8  16.6  13.4
Tanh     85.3  78.4  65.3  58.9  62.6  56.6  23.4  22.0  20.4  14.3
"""

TABLE_6 = """
frozen      89.0  85.2  72.3  64.1  65.4  59.8  25.2  23.3  22.6  17.5
not frozen  87.9  86.2  71.3  60.5  63.7  56.4  24.3  23.1  21.9  17.1
"""

Key = tuple[int, str, str, str, bool | None]
"""Table, dataset, projector, row, normalized (None where pooled, and in Table 2, whose winners have their own)."""


def percentages() -> dict[Key, float]:
    """All 250 printed percentages."""
    found: dict[Key, float] = {}
    for name, values in _lines(TABLE_2):
        for projector, value in zip(("ae", "mlp"), values[-2:], strict=True):
            found[2, name, projector, "max", None] = float(value)
    for normalized, block in TABLE_3.items():
        found |= {(3, *key, normalized): value for key, value in _wide(block)}
    found |= {(4, *key, None): value for key, value in _wide(TABLE_4)}
    found |= {(5, *key, None): value for key, value in _wide(TABLE_5)}
    for row, values in _lines(TABLE_6):
        for i, value in enumerate(values):
            found[6, SETS[i // 2], "ae", f"{row} {('max', 'avg')[i % 2]}", False] = float(value)
    return found


def peak_settings() -> dict[tuple[str, str], dict[str, Any]]:
    """Table 2's settings of the peak by (dataset, projector)."""
    found = {}
    for name, values in _lines(TABLE_2):
        for i, projector in enumerate(("ae", "mlp")):
            hidden, activation, output, normalized = (values[2 * k + i] for k in range(4))
            found[name, projector] = {
                "hidden_dim": int(hidden),
                "activation": activation,
                "output_dim": int(output),
                "normalized": normalized == "True",
            }
    return found


def _lines(block: str) -> Iterator[tuple[str, list[str]]]:
    for line in block.strip().splitlines():
        words = line.split()
        labels = [w for w in words if not w[0].isdigit()] if block is not TABLE_2 else words[:1]
        yield " ".join(labels), words[len(labels) :]


def _wide(block: str) -> Iterator[tuple[tuple[str, str, str], float]]:
    for row, values in _lines(block):
        for i, value in enumerate(values):
            yield (SETS[i // 2], ("ae", "mlp")[i % 2], row), float(value)
