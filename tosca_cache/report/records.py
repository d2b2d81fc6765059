"""Runs, sweeps and comparisons as records, one a seed (of a sweep one a setting), and what other tools take of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tosca_cache.report.compare import PLAIN, TITLES, Comparison, comparison, table_of, to_latex, to_markdown
from tosca_cache.report.pages.runs import seed_curve
from tosca_cache.report.sweeps import plain
from tosca_cache.report.tables import over_seeds
from tosca_cache.text import csv_text

NOTE = "bold: best; in italics or underlined: paired seeds do not tell its last accuracy from the best"
Facts = Mapping[str, Any]  # of a target, as pages have them


@dataclass(frozen=True)
class Record:
    """One measured thing. group: what its seeds have in common. curve: accuracy after each task. files: its artefacts."""

    group: str
    seed: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    curve: Sequence[float | None] = ()
    files: Sequence[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Group and seed."""
        return f"{self.group}, seed {self.seed}" if self.seed else self.group


def records_of(targets: Sequence[Facts]) -> list[Record]:
    """The records of some targets; stores and routes have none."""
    makers = {"run": _of_run, "sweep": _of_sweep, "comparison": _of_comparison}
    return [record for target in targets if target["kind"] in makers for record in makers[target["kind"]](target)]


def _of_run(run: Facts) -> list[Record]:
    found, folder = [], Path(run["path"])
    features = run["metrics"].get("features")
    settings = run["settings"] | ({} if features is None else {"features": features})
    for seed, values in run["metrics"]["seeds"].items():
        files = [
            p for p in (folder / "config.toml", folder / "metrics.json", folder / "provenance.json") if p.is_file()
        ]
        found.append(Record(run["name"], seed, settings, _numbers(values), seed_curve(values), files))
    return found


def _of_sweep(sweep: Facts) -> list[Record]:
    metric = sweep["metric"]
    return [
        Record(
            f"{sweep['name']} {setting['mark']}",
            "",
            sweep["base"] | setting["point"] | {"selected_on": group["how"]},
            _numbers({metric: setting["mean"], f"{metric}_spread": setting["spread"], "seeds": setting["seeds"]}),
        )
        for group in sweep["groups"]
        for setting in group["settings"]
    ]


def _of_comparison(facts: Facts) -> list[Record]:
    found = facts["found"]
    return [
        Record(
            row["method"],
            seed,
            {key: found[key] for key in ("dataset", "fingerprint", "features") if key in found} | row["options"],
            _numbers(values),
            values.get("accuracy_curve") or (),
        )
        for row in found["rows"]
        for seed, values in row["seeds"].items()
    ]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def plain_parameters(record: Record) -> dict[str, Any]:
    """Seed and parameters: numbers, and texts."""
    return {"seed": record.seed} | {
        key: value if isinstance(value, int | float) else plain(value) for key, value in record.parameters.items()
    }


def columns_of(records: Sequence[Record]) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of columns, and a row a record: group, seed, parameters, then metrics; what a record lacks is absent."""
    parameters = list(dict.fromkeys(key for record in records for key in record.parameters))
    metrics = list(dict.fromkeys(key for record in records for key in record.metrics))
    rows = []
    for record in records:
        rows.append({"group": record.group} | plain_parameters(record) | dict(record.metrics))
    return ["group", "seed", *parameters, *(m for m in metrics if m not in parameters)], rows


def to_csv(records: Sequence[Record]) -> str:
    """One line a record; formulas of spreadsheets are disarmed."""
    columns, rows = columns_of(records)
    return csv_text([columns, *([row.get(column) for column in columns] for row in rows)])


def table(targets: Sequence[Facts]) -> Comparison:
    """A comparison, or learners, runs and settings over their seeds, the best last accuracy first, as a table to write."""
    if [target["kind"] for target in targets] == ["comparison"]:
        found = comparison(targets[0]["found"])
    else:
        rows = [row for target in targets if target["kind"] == "comparison" for row in target["found"]["rows"]]
        groups: dict[str, list[Record]] = {}
        for record in records_of([target for target in targets if target["kind"] != "comparison"]):
            groups.setdefault(record.group, []).append(record)
        for name, members in groups.items():
            measured = {c: [r.metrics[c] for r in members if c in r.metrics] for c in TITLES}
            values = {column: over_seeds(numbers) for column, numbers in measured.items() if numbers}
            rows.append(PLAIN | {"method": name, "values": values, "seeds": {r.seed: r.metrics for r in members}})
        rows.sort(key=lambda row: -(row["values"].get("last_accuracy", {}).get("mean") or 0.0))
        found = table_of("results", [c for c in TITLES if any(c in row["values"] for row in rows)], rows)
    return replace(found, notes=(NOTE, *found.notes))


TEXTS: Mapping[str, Callable[[Sequence[Facts]], str]] = {
    "csv": lambda targets: to_csv(records_of(targets)),
    "markdown": lambda targets: to_markdown(table(targets)),
    "latex": lambda targets: to_latex(table(targets)),
}


def to_parquet(records: Sequence[Record], out: Path) -> None:
    """One row a record."""
    import pyarrow
    import pyarrow.parquet

    columns, rows = columns_of(records)
    arrays = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        mixed = any(isinstance(v, str) for v in values)
        arrays[column] = [None if v is None else str(v) if mixed else float(v) for v in values]
    pyarrow.parquet.write_table(pyarrow.table(arrays), out)


def to_tensorboard(records: Sequence[Record], out: Path) -> None:
    """A run of TensorBoard a record, below the folder: parameters, final metrics, and the curve by task."""
    from torch.utils.tensorboard import SummaryWriter

    for n, record in enumerate(records):
        with SummaryWriter(str(out / f"{n:04d}"), filename_suffix="") as writer:
            writer.add_text("record", record.name)
            writer.add_hparams(plain_parameters(record), dict(record.metrics), run_name=".")
            for task, value in enumerate(record.curve):
                if value is not None:
                    writer.add_scalar("accuracy_after_task", value, task + 1)


def to_mlflow(records: Sequence[Record], out: Path) -> None:
    """A run of MLflow a record, in the SQLite file mlflow.db of the folder; artefacts beside it."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{(out / 'mlflow.db').resolve()}")
    experiment = client.create_experiment("tosca", artifact_location=(out / "artifacts").resolve().as_uri())
    for record in records:
        run = client.create_run(experiment, run_name=record.name).info.run_id
        for key, value in plain_parameters(record).items():
            client.log_param(run, key, value)
        for key, number in record.metrics.items():
            client.log_metric(run, key, number)
        for task, accuracy in enumerate(record.curve):
            if accuracy is not None:
                client.log_metric(run, "accuracy_after_task", accuracy, step=task + 1)
        for file in record.files:
            client.log_artifact(run, str(file))
        client.set_terminated(run)


def to_wandb(records: Sequence[Record], out: Path) -> None:
    """An offline run of Weights & Biases a record; `wandb sync` sends them."""
    import wandb

    for record in records:
        config = plain_parameters(record)
        run = wandb.init(
            mode="offline", project="tosca", dir=str(out), name=record.name, group=record.group, config=config
        )
        for task, value in enumerate(record.curve):
            run.log({"task": task + 1, "accuracy_after_task": value})
        run.summary.update(dict(record.metrics))
        run.finish()


TOOLS: Mapping[str, tuple[str, Callable[[Sequence[Record], Path], None]]] = {
    "parquet": ("pyarrow", to_parquet),
    "tensorboard": ("tensorboard", to_tensorboard),
    "mlflow": ("mlflow", to_mlflow),
    "wandb-offline": ("wandb", to_wandb),
}
