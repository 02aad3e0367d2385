"""Tables that are not as they should be: each is read as it was meant, or ends in one sentence that says where."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.cli.commands import main
from headstart.report.anybodys import read_tables

HEADER = "method,seed,accuracy\n"
GOOD = "a,0,0.7\na,1,0.8\nb,0,0.5\nb,1,0.6\n"
LAST = HEADER + GOOD[: -len("b,1,0.6\n")]
"""All rows but the last."""


def _parquet(path: Path, columns: dict[str, list[object]]) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pydict(columns), path)


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")


BAD: dict[str, tuple[str, str | bytes | Callable[[Path], object], str]] = {
    # name: (file, content, what the sentence must say)
    "no such metric": ("r.csv", "method,seed,acc\na,0,1\nb,0,2\n", "r.csv, row 1: there is no column 'accuracy'; the "),
    "no such factor": (
        "r.csv",
        "m,seed,accuracy\na,0,1\nb,0,2\n",
        "row 1: there is no column 'method'; the table has m, ",
    ),
    "text among numbers": ("r.csv", LAST + "b,1,good\n", "r.csv, row 5: accuracy is 'good'; it must be a number"),
    "a unit": ("r.csv", LAST + "b,1,0.6s\n", "r.csv, row 5: accuracy is '0.6s'; it must be a number"),
    "a date": ("r.csv", LAST + "b,1,2024-06-18\n", "r.csv, row 5: accuracy is '2024-06-18'; it must be a number"),
    "a truth value": (
        "r.csv",
        HEADER + "a,0,True\nb,0,False\n",
        "r.csv, row 2: accuracy is 'True'; it must be a number",
    ),
    "a spread": ("r.csv", LAST + "b,1,0.6 ± 0.1\n", "r.csv, row 5: accuracy is '0.6 ± 0.1'; it must be a number"),
    "a formula": ("r.csv", LAST + "b,1,=1/2\n", "r.csv, row 5: accuracy is '=1/2'; it must be a number"),
    "digits of other scripts": ("r.csv", LAST + "b,1,٠٫٦\n", "r.csv, row 5: accuracy is '٠٫٦'; it must be a number"),
    "thousands": ("r.csv", LAST + 'b,1,"1,234.5"\n', "r.csv, row 5: accuracy is '1,234.5'; it must be a number"),
    "thousands alone": (
        "r.csv",
        HEADER.replace("seed", "seed,steps") + 'a,0,500,0.7\na,1,"10,000",0.8\nb,0,500,0.5\nb,1,"10,000",0.6\n',
        "r.csv, row 3: steps is '10,000', which may be thousands or have a decimal comma, and no other number of the ",
    ),
    "two decimal signs": (
        "r.csv",
        LAST + 'b,1,"0,6"\n',
        "row 5: accuracy is '0,6', but the column's numbers have another",
    ),
    "one percentage": (
        "r.csv",
        LAST + "b,1,60%\n",
        "row 5: accuracy is '60%', but not all of the column's numbers have",
    ),
    "infinity in words": ("r.csv", LAST + "b,1,inf\n", "r.csv, row 5: accuracy is 'inf'; it must be a number"),
    "infinity in digits": ("r.csv", LAST + "b,1,1e999\n", "r.csv, row 5: accuracy is inf; it must be finite"),
    "mlflow's infinity": (
        "r.csv",
        LAST + "b,1,1.7976931348623157e+308\n",
        "row 5: accuracy is 1.8e+308; it must be finite",
    ),
    "no number at all": (
        "r.csv",
        HEADER + "a,0,\nb,0,N/A\n",
        "accuracy holds no number in 2 rows (r.csv, row 2, r.csv, ",
    ),
    "a column twice": ("r.csv", "method,seed,seed,accuracy\na,0,0,1\n", "r.csv, row 1: there are two columns 'seed'"),
    "a short row": ("r.csv", LAST + "b,1\n", "r.csv, row 5: 2 cells where the header has 3 columns"),
    "a long row": ("r.csv", LAST + "b,1,0.6,7\n", "r.csv, row 5: 4 cells where the header has 3 columns"),
    "a title on top": ("r.csv", "Results of June\n" + LAST, "r.csv, row 2: 3 cells where the header has 1 column"),
    "two headers": ("r.csv", HEADER + "name,,mean\n" + GOOD, "r.csv, row 2: accuracy is 'mean'; it must be a number"),
    "the header again": ("r.csv", LAST + HEADER, "r.csv, row 5 repeats the header; take it out"),
    "nothing": ("r.csv", "", "r.csv is empty; it must have a header row and a row a run"),
    "nothing but blanks": ("r.csv", " \n\n ,, \n", "r.csv is empty; it must have a header row and a row a run"),
    "no rows": ("r.csv", HEADER, "r.csv: no row of a run"),
    "one level": (
        "r.csv",
        HEADER + "a,0,0.5\na,1,0.6\n",
        "r.csv: method has one value, 'a'; at least two are compared",
    ),
    "no level": ("r.csv", HEADER + ",0,0.5\n,1,0.6\n", "method has no value in any row (r.csv, row 2, r.csv, row 3)"),
    "a bar between cells": ("r.csv", LAST.replace(",", "|"), "the table has method|seed|accuracy"),
    "an open quotation mark": (
        "r.csv",
        LAST + '"b,1,0.6\n',
        "r.csv, row 5 is not a row of a table: a quotation mark is not",
    ),
    "text behind a quotation": (
        "r.csv",
        LAST + '"b"x,1,0.6\n',
        "r.csv, row 5 is not a row of a table: ',' expected after",
    ),
    "an endless cell": (
        "r.csv",
        LAST + "b" * 200_000 + ",1,0.6\n",
        "r.csv, row 5 is not a row of a table: field larger",
    ),
    "a NUL": ("r.csv", LAST + "b\0,1,0.6\n", "r.csv, row 5 holds a NUL character"),
    "bytes of another encoding": ("r.csv", (LAST + "é,1,0.6\n").encode("latin-1"), "r.csv, row 5 is not text in UTF-8"),
    "half of UTF-16": ("r.csv", LAST.encode("utf-16")[:-1], "is not text in UTF-16 (truncated data)"),
    "UTF-16 without its mark": ("r.csv", LAST.encode("utf-16-le"), "r.csv, row 1 holds a NUL character"),
    "a workbook": ("r.csv", _zipped, "r.csv is an Excel workbook or a zip archive; save the table as CSV"),
    "a compressed file": ("r.csv", gzip.compress(b"x"), "r.csv is compressed (gzip); unpack it first"),
    "a web page": ("r.csv", "<!doctype html><title>Sign in</title>", "r.csv is a web page (HTML) or XML, not a table"),
    "a parquet file called csv": ("r.csv", lambda path: _parquet(path, {"a": [1]}), "r.csv is a parquet file; call it"),
    "a folder": (
        "r.csv",
        lambda path: path.mkdir(),
        "r.csv holds neither a study nor MLflow's, TensorBoard's, W&B's or CSV files",
    ),
    "no parquet": ("r.parquet", b"PAR1 and no more", "r.parquet is not a parquet file"),
    "lists in parquet": (
        "r.parquet",
        lambda path: _parquet(path, {"method": ["a", "b"], "accuracy": [[0.1, 0.2], [0.3]]}),
        "r.parquet, row 1: accuracy is '[0.1, 0.2]'; it must be a number",
    ),
    "half of JSON": (
        "r.json",
        '[{"method": "a",\n "accuracy": }]',
        "r.json is not JSON: Expecting value: line 2 column",
    ),
    "JSON of a number": ("r.json", "3", "r.json, entry 1 is 3; it must be names and values"),
    "columns of two lengths": (
        "r.json",
        '{"method": ["a", "b"], "accuracy": [1]}',
        "r.json: accuracy has 1 values where ",
    ),
    "deep JSON": ("r.json", "[" * 100_000, "r.json is not JSON: "),
    "deep names": ("r.json", '{"a":' * 900 + "1" + "}" * 900, "r.json"),
    "JSON of an integer too large": (
        "r.jsonl",
        f'{{"method": "a", "accuracy": {"9" * 400}}}\n{{"method": "b", "accuracy": 1}}\n',
        "r.jsonl, row 1: accuracy is inf; it must be finite",
    ),
    "a list a line": ("r.jsonl", '["a", 0, 0.5]\n', "r.jsonl, row 1 is ['a', 0, 0.5]; it must be names and values"),
    "a line that is no JSON": (
        "r.jsonl",
        '{"method": "a"}\n\nmethod: b\n',
        "r.jsonl, row 3 is not JSON: Expecting value",
    ),
    "JSON lines of another encoding": (
        "r.jsonl",
        b'{"method": "\xe9"}\n',
        "r.jsonl, row 1 is not JSON: it must be text in",
    ),
    "lists where numbers belong": (
        "r.jsonl",
        '{"method": "a", "accuracy": [0.1]}\n{"method": "b", "accuracy": [0.2]}\n',
        "r.jsonl, row 1: accuracy is '[0.1]'; it must be a number",
    ),
    "no store": ("r.db", "no store", "r.db is not an MLflow store: "),
}

READ: dict[str, tuple[str, str | bytes | Callable[[Path], object]]] = {
    "decimal commas": ("r.csv", HEADER + 'a,0,"0,7"\na,1,"0,8"\nb,0,"0,5"\nb,1,"0,6"\n'),
    "decimal commas and three decimals": (
        "r.csv",
        HEADER.replace("seed", "seed,lr")
        + "".join(
            f'{m},{s},"1,250","0,{v}"\n' for m, s, v in (("a", 0, 700), ("a", 1, 800), ("b", 0, 500), ("b", 1, 600))
        ),
    ),
    "three decimals between semicolons": (
        "r.csv",
        HEADER.replace("seed", "seed;lr").replace(",", ";")
        + GOOD.replace(",0.", ";1,250;0,").replace("a,", "a;").replace("b,", "b;"),
    ),
    "semicolons": ("r.csv", (HEADER + GOOD).replace(",", ";").replace("0.", "0,")),
    "tabs": ("r.csv", (HEADER + GOOD).replace(",", "\t")),
    "percentages": ("r.csv", HEADER + "a,0,70 %\na,1,80%\nb,0,50%\nb,1,60.0%\n"),
    "a byte-order mark": ("r.csv", (HEADER + GOOD).encode("utf-8-sig")),
    "UTF-16": ("r.csv", (HEADER + GOOD).encode("utf-16")),
    "Windows lines": ("r.csv", (HEADER + GOOD).replace("\n", "\r\n")),
    "old Macintosh lines": ("r.csv", (HEADER + GOOD).replace("\n", "\r")),
    "blank lines and cells": ("r.csv", "\n" + HEADER + "\n" + GOOD.replace(",", " , ") + ",,\n\n"),
    "a number a row without a name": (
        "r.csv",
        "," + HEADER + "".join(f"{i},{r}\n" for i, r in enumerate(GOOD.split())),
    ),
    "names that a table gives itself": (
        "r.csv",
        HEADER.replace("seed", "seed,first,second,key") + GOOD.replace(",0,", ",0,x,y,z,").replace(",1,", ",1,x,y,z,"),
    ),
    "line breaks in cells": (
        "r.csv",
        'method,"se\ned",accuracy\n'.replace("se\ned", "seed") + GOOD.replace("a,", '"a",'),
    ),
    "separators of Unicode in cells": (
        "r.csv",
        HEADER.replace("seed", "seed,note")
        + GOOD.replace(",0,", ",0,x\u2028y\x0b\x85,").replace(",1,", ",1,x\u2028y\x0b\x85,"),
    ),
    "a row that has no metric": ("r.csv", HEADER + GOOD + "a,2,N/A\nb,2,\n"),
    "nested parquet": (
        "r.parquet",
        lambda path: _parquet(
            path,
            {
                "config": [{"method": m, "seed": s, "sizes": [64, 64]} for m in "ab" for s in (0, 1)],
                "summary": [{"accuracy": v} for v in (0.7, 0.8, 0.5, 0.6)],
            },
        ),
    ),
    "JSON lines with lists": (
        "r.jsonl",
        "".join(
            json.dumps(
                {
                    "method": row.split(",")[0],
                    "seed": int(row.split(",")[1]),
                    "accuracy": float(row.split(",")[2]),
                    "layers": [1, 2],
                }
            )
            + "\n"
            for row in GOOD.split()
        ),
    ),
}


def _write(path: Path, content: str | bytes | Callable[[Path], object]) -> Path:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_table_ends_in_one_sentence(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, content, words = BAD[case]
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / name, content)
    with pytest.raises(SystemExit) as ended:
        main(["compare", name, "--metric", "accuracy", "--by", "method"])
    said = capsys.readouterr().err
    assert words in said
    assert ended.value.code == 2
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("case", READ)
def test_an_unusual_table_is_read_as_it_was_meant(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content = READ[case]
    path = _write(tmp_path / name, content)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(path), "--metric", "accuracy", "--by", "method"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(
        "A is ahead of b by 20.0 points in 2 of 2 pairs; every difference over 2 seeds "
    )


def test_long_whole_numbers_stay_apart(tmp_path: Path) -> None:
    """As floats they would be one seed."""
    rows = [f"{m},1000000000000000000{s},0.5" for m in "ab" for s in (1, 2)]
    table = read_tables([_write(tmp_path / "r.csv", HEADER + "\n".join(rows))])
    assert table["seed"].nunique() == 2


def test_one_column_in_two_roles_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "r.csv", HEADER + GOOD)
    for options, words in (
        (["--metric", "accuracy", "--by", "accuracy"], "accuracy is compared (--by) and cannot be --metric as well"),
        (["--metric", "accuracy", "--by", "method", "--seed", "accuracy"], "is judged (--metric) and cannot be --seed"),
        (["--metric", "accuracy", "--by", "method", "--pair", "method"], "is compared (--by) and cannot be --pair"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["compare", str(path), *options])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_rows_without_a_level_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "r.csv", HEADER + GOOD + ",1,0.6\n")
    with pytest.raises(SystemExit):
        main(["compare", str(path), "--metric", "accuracy", "--by", "method"])
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 5 rows is without method: " in said
    assert "row 6." in said
