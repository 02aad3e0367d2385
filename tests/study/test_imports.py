"""The authors' exports, whole and damaged."""

import contextlib
import csv
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.records.config import load
from headstart.records.errors import InputError
from headstart.records.files import read_json, write_json
from headstart.study.exports import COLUMNS, read_export
from headstart.study.imports import import_csv

FILES = (
    "ae-train.csv",
    "simclr-train.csv",
    "simclr-eval.csv",
    "simclr-train-ae-nonfrozen.csv",
    "simclr-eval-ae-nonfrozen.csv",
)


@pytest.fixture
def few(reference: Path, tmp_path: Path) -> Path:
    """A copy of the exports cut down to CIFAR10's sigmoid heads without Z-score: 3 autoencoders, 27 runs."""
    folder = tmp_path / "few"
    folder.mkdir()
    for name in FILES:
        rows = list(csv.reader((reference / name).open(newline="")))
        column = {c: i for i, c in enumerate(rows[0])}
        keep = [
            row
            for row in rows[1:]
            if row[column["dataset_name"]] == "CIFAR10"
            and (
                name == "ae-train.csv"
                or (row[column["projection_head_activation"]], row[column["standardize"]]) == ("Sigmoid", "False")
            )
        ]
        _write(folder / name, [rows[0], *keep])
    return folder


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _edit(path: Path, row: int, column: str, change: object) -> None:
    """Change one cell; `row` as a spreadsheet counts."""
    rows = list(csv.reader(path.open(newline="")))
    at = rows[0].index(column)
    rows[row - 1][at] = change(rows[row - 1][at]) if callable(change) else str(change)
    _write(path, rows)


def _paths(folder: Path) -> list[Path]:
    return [folder / name for name in FILES]


def test_all_five_exports_give_780_complete_records(reference: Path, tmp_path: Path) -> None:
    summary = import_csv(_paths(reference), tmp_path / "study")
    assert (summary.records, summary.autoencoders, summary.runs, summary.unevaluated) == (780, 15, 765, 0)
    assert set(summary.sets) == {"Imagenette", "STL10", "CIFAR10", "FGVCAircraft", "CIFAR100"}
    folders = list((tmp_path / "study" / "runs").iterdir())
    assert len(folders) == 780
    for folder in folders:
        result = read_json(folder / "result.json")
        assert result["schema"] == 1
        if result["stage"] == "autoencoder":
            assert result["autoencoder"]["test_mse"] < 0.05
            assert (result["contrastive"], result["probes"]) == (None, {})
        else:
            assert (result["stage"], result["contrastive"]["epochs"]) == ("probe", 150)
            assert 0.03 < result["probes"]["paper"]["accuracy"] < 0.9
            assert (result["autoencoder"] is None) == (result["head"]["init"] == "random")
            low, high = result["probes"]["paper"]["ci95"]
            assert low < result["probes"]["paper"]["accuracy"] < high


def test_a_record_states_what_its_rows_state(reference: Path, few: Path, tmp_path: Path) -> None:
    summary = import_csv(_paths(few), tmp_path / "study")
    assert (summary.autoencoders, summary.runs) == (3, 27)
    (folder,) = (tmp_path / "study" / "runs").glob("cifar10-autoencoder-trainable-sigmoid-h512-z32-raw-*")
    result = read_json(folder / "result.json")
    evaluation = next(
        row
        for row in csv.DictReader((reference / "simclr-eval-ae-nonfrozen.csv").open(newline=""))
        if row["simclr_model_ckpt"] == result["imported"]["training"]["simclr_model_ckpt"]
    )
    probe = result["probes"]["paper"]
    assert probe["accuracy"] == float(evaluation["test_micro_MulticlassAccuracy"].replace(",", "."))
    assert (probe["correct"], probe["n_test"]) == (698, 2000)
    assert result["head"] == {
        "init": "autoencoder",
        "frozen": False,
        "activation": "sigmoid",
        "hidden_dim": 512,
        "output_dim": 32,
    }
    assert result["seconds"]["probe"] == pytest.approx(7.9 * 60)
    assert result["autoencoder"]["test_mse"] == pytest.approx(0.00430, abs=5e-6)
    config, about = load(folder / "config.yaml")
    assert about["imported"]
    assert (config.head.hidden_dim, config.head.activation, config.data.normalize) == (512, "sigmoid", False)
    assert (config.contrastive.lr, config.contrastive.batch_size) == (1.5, 1280)


def test_files_may_be_renamed_reordered_and_have_the_other_decimal_sign(few: Path, tmp_path: Path) -> None:
    _edit_all = (few / "simclr-eval.csv").read_text()
    (few / "simclr-eval.csv").write_text(re.sub(r'"(-?\d+),(\d+)"', r"\1.\2", _edit_all))
    for name in FILES:
        (few / name).rename(few / f"x{name}")
    study = tmp_path / "study"
    assert import_csv(reversed([few / f"x{name}" for name in FILES]), study).records == 30
    (folder,) = (study / "runs").glob("cifar10-autoencoder-frozen-sigmoid-h128-z64-raw-*")
    assert read_json(folder / "result.json")["probes"]["paper"]["accuracy"] == pytest.approx(0.6355, abs=0.05)


def test_a_run_without_an_evaluation_ends_at_contrastive(few: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((few / "simclr-eval.csv").open(newline="")))
    _write(few / "simclr-eval.csv", rows[:-1])
    summary = import_csv(_paths(few), tmp_path / "study")
    assert (summary.runs, summary.unevaluated) == (27, 1)
    stages = [read_json(p)["stage"] for p in (tmp_path / "study" / "runs").glob("*/result.json")]
    assert (stages.count("probe"), stages.count("contrastive"), stages.count("autoencoder")) == (26, 1, 3)


@pytest.mark.parametrize("name", FILES)
def test_every_column_that_is_read_is_missed(name: str, few: Path) -> None:
    kind, _ = read_export(few / name)
    rows = list(csv.reader((few / name).open(newline="")))
    for column in COLUMNS[kind]:
        at = rows[0].index(column)
        _write(few / "cut.csv", [row[:at] + row[at + 1 :] for row in rows])
        with pytest.raises(InputError, match=rf"cut\.csv, row 1.*{re.escape(repr(column))}"):
            read_export(few / "cut.csv")


@pytest.mark.parametrize(
    ("name", "column", "change", "message"),
    [
        ("simclr-eval.csv", "test_micro_MulticlassAccuracy", lambda v: v.replace(",", "."), r"row 5: .*decimal comma"),
        ("ae-train.csv", "test_mse", lambda v: v.replace(".", ","), r"row 3: .*decimal point"),
        ("simclr-eval.csv", "test_micro_MulticlassAccuracy", lambda v: v.replace(",", ""), r"row 5: .*0 to 1"),
        ("simclr-eval.csv", "test_micro_MulticlassAccuracy", "n/a", r"row 5: .*'n/a'"),
        ("simclr-train.csv", "train_loss", "1.234,5", r"row 5: train_loss"),
        ("simclr-train.csv", "Duration", "two hours", r"row 5: Duration .*duration such as"),
        ("simclr-train.csv", "standardize", "yes", r"row 5: standardize is 'yes'; it must be True or False"),
        ("simclr-train.csv", "projection_head", "vae", r"row 5: projection_head is 'vae'"),
        ("simclr-train.csv", "latent_dimensions", "0", r"row 5: latent_dimensions is '0'"),
        ("simclr-eval.csv", "simclr_model_ckpt", "elsewhere.ckpt", r"row 5: no training row"),
        ("simclr-eval.csv", "projection_head_activation", "Tanh", r"row 5: projection_head_activation is Tanh, but"),
    ],
)
def test_damage_names_file_and_row(
    name: str, column: str, change: object, message: str, few: Path, tmp_path: Path
) -> None:
    _edit(few / name, 3 if name == "ae-train.csv" else 5, column, change)
    with pytest.raises(InputError, match=rf"{re.escape(name)}, {message}"):
        import_csv(_paths(few), tmp_path / "study")
    assert not (tmp_path / "study").exists(), "nothing may be written before everything is checked"


@pytest.mark.parametrize("name", FILES)
def test_a_repeated_row_is_refused(name: str, few: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((few / name).open(newline="")))
    _write(few / name, [*rows, rows[2]])
    with pytest.raises(InputError, match=rf"{re.escape(name)}, row {len(rows) + 1} repeats row 3"):
        import_csv(_paths(few), tmp_path / "study")


def test_a_row_repeated_in_another_file_is_refused(few: Path, tmp_path: Path) -> None:
    (few / "again.csv").write_bytes((few / "simclr-train.csv").read_bytes())
    with pytest.raises(InputError, match=r"again\.csv, row 2 repeats row 2 of .*simclr-train\.csv"):
        import_csv([*_paths(few), few / "again.csv"], tmp_path / "study")


def test_an_unknown_autoencoder_and_a_torn_line_are_refused(few: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((few / "ae-train.csv").open(newline="")))
    _write(few / "ae-train.csv", rows[:-1])
    with pytest.raises(InputError, match=r"simclr-train.*\.csv, row \d+: no autoencoder row has the model_ckpt"):
        import_csv(_paths(few), tmp_path / "study")
    with (few / "ae-train.csv").open("a") as file:
        file.write("2024-05-01,torn")
    with pytest.raises(InputError, match=r"ae-train\.csv, row 4: 2 cells where the header has \d+ columns"):
        import_csv(_paths(few), tmp_path / "study")


@pytest.mark.parametrize(("name", "key"), [("ae-train.csv", "model_ckpt"), ("simclr-train.csv", "simclr_model_ckpt")])
def test_repeats_whose_ids_begin_alike_get_a_folder_each(name: str, key: str, few: Path, tmp_path: Path) -> None:
    header, *rows = csv.reader((few / name).open(newline=""))
    at, checkpoint = header.index("Run ID"), header.index(key)

    def imported(out: Path, *ids: str) -> list[str]:
        repeats = [list(rows[0]) for _ in ids]
        for row, run in zip(repeats, ids, strict=True):
            row[at], row[checkpoint] = run, f"{run}/epoch=3.ckpt"
        _write(few / name, [header, *repeats, rows[1]])
        files = [few / name] if name == "ae-train.csv" else [few / name, few / "ae-train.csv"]
        records = import_csv(files, out).records
        folders = [path.name for path in (out / "runs").iterdir()]
        assert len(folders) == records
        return folders

    folders = imported(tmp_path / "study", "simclr-run-1", "simclr-run-2", "other-run-3")
    ends = [end for end in ("-simclr-run-1", "-simclr-run-2", "-other-ru") for name in folders if name.endswith(end)]
    assert ends == ["-simclr-run-1", "-simclr-run-2", "-other-ru"]
    with pytest.raises(InputError, match=rf"{name}, row 3: its Run ID 'run 1' .* of .*{name}, row 2, 'run-1', do"):
        imported(tmp_path / "refused", "run-1", "run 1")
    assert not (tmp_path / "refused").exists()


def test_an_occupied_folder_is_refused(few: Path, tmp_path: Path) -> None:
    import_csv(_paths(few), tmp_path / "study")
    with pytest.raises(InputError, match="already holds runs"):
        import_csv(_paths(few), tmp_path / "study")


def test_a_study_that_has_no_run_yet_is_not_replaced(few: Path, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text("seeds: [0]\n")
    with pytest.raises(InputError, match="already holds a study"):
        import_csv(_paths(few), tmp_path / "study")
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["study.yaml"]


def test_a_hostile_set_name_stays_inside_the_study(few: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((few / "ae-train.csv").open(newline="")))
    rows[1][rows[0].index("dataset_name")] = "../../<script>"
    _write(few / "ae-train.csv", rows[:2])
    import_csv([few / "ae-train.csv"], tmp_path / "study")
    (folder,) = (tmp_path / "study" / "runs").iterdir()
    assert re.fullmatch(r"autoencoder-script-h\d+-[0-9a-f]+", folder.name)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_fuzzed_exports_raise_only_our_error(data: st.DataObject, few: Path) -> None:
    original = (few / "ae-train.csv").read_bytes()
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (few / "fuzzed.csv").write_bytes(bytes(content))
    with contextlib.suppress(InputError):  # anything else fails the test
        kind, rows = read_export(few / "fuzzed.csv")
        assert kind == "autoencoder"
        assert len(rows) <= 3


def test_an_interrupted_import_goes_on(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same command; one of other files is still refused, and leaves what there is."""
    out, whole = tmp_path / "study", tmp_path / "whole"
    import_csv(_paths(few), whole)
    written: list[Path] = []

    def stopped(path: Path, value: object) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write_json(path, value)

    with monkeypatch.context() as during:
        during.setattr("headstart.study.imports.write_json", stopped)
        with pytest.raises(KeyboardInterrupt):
            import_csv(_paths(few), out)
    assert len(written) == 5
    assert not (out / "study.yaml").exists()
    with pytest.raises(InputError, match="already holds runs"):
        import_csv([few / "simclr-train.csv", few / "simclr-eval.csv"], out)
    assert not (out / "study.yaml").exists()
    import_csv(_paths(few), out)

    def files(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert files(out) == files(whole)
