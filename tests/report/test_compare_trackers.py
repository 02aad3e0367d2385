"""Runs as experiment trackers keep them, written by the trackers' own libraries, give the answer of the plain table."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import headstart
from headstart.records.errors import InputError
from headstart.report.anybodys import read_tables
from headstart.report.compare import Compared, compare


def _runs() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"method": m, "dataset": "d0", "seed": s, "accuracy": float(np.float32(0.7 + gain + 0.01 * rng.normal()))}
        for m, gain in (("a", 0.05), ("b", 0.0), ("c", 0.0))
        for s in range(5)
    ]


RUNS = _runs()
PLAIN = headstart.compare(pd.DataFrame(RUNS), metric="accuracy", by="method")


def _decided(found: Compared) -> dict[tuple[str, str], tuple[float, ...]]:
    """p and interval of each two levels, whichever row comes first."""
    decided = {}
    for c in found.comparisons:
        sign = 1 if c.pairing.a < c.pairing.b else -1
        ends = sorted(sign * end for end in c.decision.test.interval)
        decided[min(c.pairing.a, c.pairing.b), max(c.pairing.a, c.pairing.b)] = (c.decision.adjusted, *ends)
    return decided


def _same(*paths: Path, metric: str = "accuracy") -> None:
    found = _decided(compare(read_tables(paths), metric=metric, by="method"))
    plain = _decided(PLAIN)
    assert found.keys() == plain.keys()
    for which, numbers in found.items():
        assert numbers == pytest.approx(plain[which], rel=1e-9)


# --------------------------------------------------------------------------------------------------------------- MLflow


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What MLflow made, as mlflow.db and as mlruns/: a deleted run, a run without its metric, numbers that are none."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        environment.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        for uri in ((folder / "mlruns").as_uri(), f"sqlite:///{folder / 'mlflow.db'}"):
            environment.setenv("MLFLOW_TRACKING_URI", uri)
            _log(folder, uri)
        yield folder


def _log(folder: Path, uri: str) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("study", artifact_location=(folder / "artifacts").as_uri())
    for row in RUNS:
        run = client.create_run(experiment, run_name=f"{row['method']} {row['seed']}").info.run_id
        for name in ("method", "dataset", "seed"):
            client.log_param(run, name, row[name])
        for step, value in enumerate((0.1, row["accuracy"])):
            client.log_metric(run, "accuracy", value, step=step)
        client.log_metric(run, "val/accuracy", row["accuracy"])
        client.log_metric(run, "diverged", float("nan") if row["seed"] else float("inf"))
    client.delete_run(run)
    again = client.create_run(experiment, run_name="again").info.run_id
    for name in ("method", "dataset", "seed"):
        client.log_param(again, name, RUNS[-1][name])
    for name in ("accuracy", "val/accuracy"):
        client.log_metric(again, name, RUNS[-1]["accuracy"])


@pytest.fixture
def store(logged: Path) -> Path:
    """Its sqlite store."""
    return logged / "mlflow.db"


@pytest.mark.parametrize("name", ["mlflow.db", "mlruns"])
def test_what_mlflow_keeps(logged: Path, name: str) -> None:
    _same(logged / name)
    _same(logged / name, metric="val/accuracy")
    table = read_tables([logged / name])
    assert table["diverged"].isna().sum() == 12, "a number that is none is missing, not zero"
    with pytest.raises(InputError, match=rf"{name}, run \w 0: diverged is inf; it must be finite"):
        compare(table, metric="diverged", by="method")


def test_a_file_store_of_an_older_mlflow(tmp_path: Path) -> None:
    """Its run's id is `run_uuid`, its run's name a tag, and its metrics have no step; deleted runs are left out."""
    for i, row in enumerate([*RUNS, {**RUNS[0], "method": "deleted"}]):
        run = tmp_path / "mlruns" / "0" / f"{i:032x}"
        stage = "deleted" if row["method"] == "deleted" else "active"
        kept = {"meta.yaml": yaml.safe_dump({"run_uuid": run.name, "experiment_id": "0", "lifecycle_stage": stage})}
        kept |= {f"params/{name}": str(row[name]) for name in ("method", "dataset", "seed")}
        kept |= {"metrics/accuracy": f"1 0.1\n2 {row['accuracy']!r}\n", "tags/mlflow.runName": f"run {i}"}
        for name, text in kept.items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(text, encoding="utf-8")
    _same(tmp_path / "mlruns")
    _same(tmp_path)
    assert set(read_tables([tmp_path])["run_name"]) == {f"run {i}" for i in range(len(RUNS))}
    metric = tmp_path / "mlruns" / "0" / f"{0:032x}" / "metrics" / "accuracy"
    metric.write_text("1 0.5 0\n2 half 1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"metrics/accuracy, row 2 is '2 half 1'; it must be a time, a number and"):
        read_tables([tmp_path / "mlruns"])
    for meta in tmp_path.rglob("meta.yaml"):
        meta.write_text(meta.read_text(encoding="utf-8").replace("active", "deleted"), encoding="utf-8")
    with pytest.raises(InputError, match=r"mlruns holds runs of MLflow, and all of them are deleted"):
        read_tables([tmp_path / "mlruns"])


def test_mlflows_csv_export(store: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner
    from mlflow.experiments import commands

    asked = ["csv", "--experiment-id", "1", "--filename", str(tmp_path / "runs.csv")]
    assert CliRunner().invoke(commands, asked).exit_code == 0
    assert "metrics.accuracy" in (tmp_path / "runs.csv").read_text().splitlines()[0]
    _same(tmp_path / "runs.csv")
    _same(tmp_path / "runs.csv", metric="metrics.accuracy")


# ---------------------------------------------------------------------------------------------------------- TensorBoard


def _own_writer(folder: Path, row: dict[str, Any]) -> None:
    """TensorBoard's own writer: scalars as tensors; the settings stand in the folder's name."""
    from tensorboard.summary import Writer

    writer = Writer(str(folder / f"method={row['method']},dataset=d0" / f"seed={row['seed']}"))
    for step, value in enumerate((0.1, row["accuracy"])):
        writer.add_scalar("accuracy", value, step)
    writer.close()


def _torchs_writer(folder: Path, row: dict[str, Any]) -> None:
    """torch's: plain scalars, and hyperparameters in a folder of their own below the run's."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder / f"run {row['method']}-{row['seed']}")
    for step, value in enumerate((0.1, row["accuracy"])):
        writer.add_scalar("accuracy", value, step)
    writer.add_histogram("weights", np.arange(4.0))
    writer.add_hparams({name: row[name] for name in ("method", "dataset", "seed")}, {"hparam/final": row["accuracy"]})
    writer.close()


@pytest.mark.parametrize("write", [_own_writer, _torchs_writer])
def test_tensorboards_event_files(tmp_path: Path, write: Callable[[Path, dict[str, Any]], None]) -> None:
    pytest.importorskip("tensorboard")
    for row in RUNS:
        write(tmp_path / "logs", row)
    _same(tmp_path / "logs")
    assert len(read_tables([tmp_path / "logs"])) == len(RUNS)
    if write is _torchs_writer:
        _same(tmp_path / "logs", metric="hparam/final")
        one = next((tmp_path / "logs").rglob("*tfevents*"))
        assert len(read_tables([one])) == 1


def test_event_files_cut_short_keep_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    _own_writer(tmp_path, RUNS[0])
    file = next(tmp_path.rglob("*tfevents*"))
    file.write_bytes(file.read_bytes()[:-7])
    assert read_tables([tmp_path])["accuracy"].tolist() == pytest.approx([0.1])


def test_event_files_without_tensorboard_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_accumulator", None)
    with pytest.raises(InputError, match=r"pip install 'headstart\[tensorboard\]'"):
        read_tables([tmp_path])


def test_tensorboards_downloads(tmp_path: Path) -> None:
    """A file a run and scalar, as its page downloads them."""
    for row in RUNS:
        run = f"method={row['method']},dataset=d0,seed={row['seed']}"
        for tag, last in (("accuracy", row["accuracy"]), ("loss", 1.5)):
            lines = [f"1718731{step}.0,{step},{value!r}" for step, value in enumerate((0.1, last))]
            (tmp_path / f"run-{run}-tag-{tag}.csv").write_text("\n".join(["Wall time,Step,Value", *lines]) + "\n")
    _same(tmp_path)
    assert read_tables([tmp_path])["loss"].tolist() == [1.5] * len(RUNS)


# ----------------------------------------------------------------------------------------------------- Weights & Biases


def test_wandbs_table_of_runs(tmp_path: Path) -> None:
    """The CSV that its page exports: every cell quoted, the run's own columns first, nested settings dotted."""
    own = ["Name", "State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep"]
    header = [*own, "dataset", "method", "optimizer.lr", "seed", "accuracy"]
    lines = [header]
    for i, row in enumerate(RUNS):
        about = [f"gentle-sun-{i}", "finished", "-", "someone", "", f"2024-06-18T19:1{i % 10}:00.000Z", str(60 + i), ""]
        lines.append([*about, "d0", row["method"], "0.1", str(row["seed"]), repr(row["accuracy"])])
    (tmp_path / "wandb_export_2024-06-18T21_00_00.000+02_00.csv").write_text(
        "\n".join(",".join(f'"{cell}"' for cell in line) for line in lines) + "\n"
    )
    _same(next(tmp_path.iterdir()))


def test_wandbs_summaries_in_its_run_folders(tmp_path: Path) -> None:
    """files/wandb-summary.json and files/config.yaml of each run, as the library leaves them."""
    for i, row in enumerate(RUNS):
        files = tmp_path / "wandb" / f"run-20240618_19110{i % 10}-id{i:06d}" / "files"
        files.mkdir(parents=True)
        own = {"_wandb": {"runtime": 60 + i}, "_runtime": 60.5 + i, "_step": 1, "_timestamp": 1718731.5 + i}
        (files / "wandb-summary.json").write_text(json.dumps({"accuracy": row["accuracy"], **own}))
        config: dict[str, Any] = {"_wandb": {"value": {"cli_version": "0.31.0", "t": {"1": [1, 41], "4": "3.11.7"}}}}
        config |= {name: {"value": row[name]} for name in ("method", "dataset", "seed")}
        config["optimizer"] = {"value": {"betas": [0.9, 0.99], "lr": 0.1}}
        (files / "config.yaml").write_text(yaml.safe_dump(config))
    _same(tmp_path / "wandb")
    _same(*tmp_path.rglob("wandb-summary.json"))


def test_the_table_that_wandbs_guide_makes_of_runs(tmp_path: Path) -> None:
    """`pd.DataFrame({"summary": ..., "config": ..., "name": ...}).to_csv(...)` over `Api().runs(...)`."""
    table = pd.DataFrame(
        {
            "summary": [{"accuracy": r["accuracy"], "_wandb": {"runtime": 5}, "loss": float("nan")} for r in RUNS],
            "config": [{name: r[name] for name in ("method", "dataset", "seed")} for r in RUNS],
            "name": [f"gentle-sun-{i}" for i in range(len(RUNS))],
        }
    )
    table.to_csv(tmp_path / "project.csv")
    _same(tmp_path / "project.csv")
    (tmp_path / "project.csv").write_text(',summary,config,name\n0,"{\'a\': 1","{}",x\n')
    with pytest.raises(InputError, match=r"project\.csv, row 2: summary is \"\{'a': 1\"; it must be"):
        read_tables([tmp_path / "project.csv"])


def test_wandbs_chart(tmp_path: Path) -> None:
    """The CSV of a chart: a column a run, beside the smallest and largest of what one point stands for."""
    table: dict[str, list[Any]] = {"Step": [0, 1, 2]}
    for row in RUNS:
        name = f"method={row['method']},dataset=d0,seed={row['seed']} - accuracy"
        table |= {name + band: [0.1, row["accuracy"], ""] for band in ("", "__MIN", "__MAX")}
    pd.DataFrame(table).to_csv(tmp_path / "chart.csv", index=False, quoting=1)
    _same(tmp_path / "chart.csv")
