"""Runs, sweeps and comparisons as records, one a seed (of a sweep one a setting), and what other tools take of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tosca_cache.report.pages.comparisons import paired, verdict
from tosca_cache.text import csv_text, latex, markdown

LATIN = 0x17F  # the last letter of Latin Extended-A, which pdfLaTeX sets
MEASURES = ("average_accuracy", "last_accuracy", "forgetting")
TITLES = {"average_accuracy": "A-bar (%)", "last_accuracy": "A_T (%)", "forgetting": "forgetting"}


@dataclass(frozen=True)
class Record:
    """One measured thing. group: what its seeds have in common. curve: accuracy after each task. files: its artefacts.

    bound: of a bound, not of a learner to be compared with.
    """

    group: str
    seed: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    curve: Sequence[float | None] = ()
    files: Sequence[Path] = field(default_factory=list)
    bound: bool = False

    @property
    def name(self) -> str:
        """Group and seed."""
        return f"{self.group}, seed {self.seed}" if self.seed else self.group


def records_of(targets: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The records of facts as pages have them; stores and routes have none."""
    makers: dict[str, Callable[[Mapping[str, Any]], list[Record]]] = {
        "run": _of_run,
        "sweep": _of_sweep,
        "comparison": _of_comparison,
    }
    return [record for target in targets if target["kind"] in makers for record in makers[target["kind"]](target)]


def _of_run(run: Mapping[str, Any]) -> list[Record]:
    found, folder = [], Path(run["path"])
    features = run["metrics"].get("features")
    settings = run["settings"] | ({} if features is None else {"features": features})
    for seed, values in run["metrics"]["seeds"].items():
        files = [
            p for p in (folder / "config.toml", folder / "metrics.json", folder / "provenance.json") if p.is_file()
        ]
        counts = values.get("test_rows") or [1] * len(values["R"])
        curve = [_weighted(row[: t + 1], counts) for t, row in enumerate(values["R"])]
        found.append(Record(run["name"], seed, settings, _numbers(values), curve, files))
    return found


def _weighted(row: Sequence[float | None], counts: Sequence[int]) -> float | None:
    pairs = [(value, count) for value, count in zip(row, counts, strict=False) if value is not None]
    total = sum(count for _, count in pairs)
    return sum(value * count for value, count in pairs) / total if total else None


def _of_sweep(sweep: Mapping[str, Any]) -> list[Record]:
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


def _of_comparison(facts: Mapping[str, Any]) -> list[Record]:
    found = facts["found"]
    return [
        Record(
            row["method"],
            seed,
            {key: found[key] for key in ("dataset", "fingerprint", "features") if key in found} | row["options"],
            _numbers(values),
            values.get("accuracy_curve") or (),
            bound=bool(row["bound"]),
        )
        for row in found["rows"]
        for seed, values in row["seeds"].items()
    ]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def columns_of(records: Sequence[Record]) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of columns, and a row a record: group, seed, parameters, then metrics; what a record lacks is absent."""
    parameters = list(dict.fromkeys(key for record in records for key in record.parameters))
    metrics = list(dict.fromkeys(key for record in records for key in record.metrics))
    rows = []
    for record in records:
        given = {k: v if isinstance(v, int | float) else _text(v) for k, v in record.parameters.items()}
        rows.append({"group": record.group, "seed": record.seed} | given | dict(record.metrics))
    return ["group", "seed", *parameters, *(m for m in metrics if m not in parameters)], rows


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def to_csv(records: Sequence[Record]) -> str:
    """One line a record; formulas of spreadsheets are disarmed."""
    columns, rows = columns_of(records)
    return csv_text([columns, *([row.get(column) for column in columns] for row in rows)])


@dataclass(frozen=True)
class Summary:
    """One group over its seeds: (mean, half of the 95 % interval) by measure; best, equal: in last accuracy."""

    group: str
    values: Mapping[str, tuple[float, float | None]]
    best: bool
    equal: bool


def summaries(records: Sequence[Record]) -> list[Summary]:
    """Groups, best last accuracy first and bounds last; equal are those that paired seeds do not tell from the best."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    found = []
    for name, members in groups.items():
        values = {m: [r.metrics[m] for r in members if m in r.metrics] for m in MEASURES}
        seeds = {"seeds": {r.seed: {"last_accuracy": r.metrics.get("last_accuracy")} for r in members}}
        found.append((name, {m: _spread(v) for m, v in values.items() if v}, seeds, members[0].bound))
    found.sort(key=lambda one: (one[3], -one[1].get("last_accuracy", (-1.0, None))[0]))
    best = next((one for one in found if not one[3]), None)
    shown = []
    for one in found:
        difference = None if best is None or one is best or one[3] else paired(one[2], best[2])
        equal = difference is not None and verdict(difference) == "not told apart"
        shown.append(Summary(one[0], one[1], one is best, equal))
    return shown


def _spread(values: Sequence[float]) -> tuple[float, float | None]:
    return mean(values), stdev(values) if len(values) > 1 else None


def to_markdown(records: Sequence[Record]) -> str:
    """A table of means and standard deviations: the best bold, those not told apart from it in italics."""
    lines = [
        f"| | {' | '.join(TITLES[m].replace('_', chr(92) + '_') for m in MEASURES)} |",
        f"|---|{'---:|' * len(MEASURES)}",
    ]
    for one in summaries(records):
        cells = [_cell(one, measure, "**{}**", "*{}*") for measure in MEASURES]
        lines.append(f"| {markdown(one.group)} | {' | '.join(cells)} |")
    return (
        "\n".join([*lines, "", "bold: best last accuracy; italics: paired seeds do not tell it from the best"]) + "\n"
    )


def to_latex(records: Sequence[Record]) -> str:
    """A table float for booktabs: the best bold, those not told apart from it underlined."""
    needs = "% needs \\usepackage{booktabs}"
    if any(ord(letter) > LATIN for record in records for letter in record.group):
        needs += "; names in letters beyond Latin need LuaLaTeX or XeLaTeX, and a font that has them"
    titles = [r"$\bar{A}$ (\%)", r"$A_T$ (\%)", "forgetting"]
    lines = [needs, r"\begin{table}", r"\centering", r"\begin{tabular}{lrrr}", r"\toprule"]
    lines += [f" & {' & '.join(titles)} \\\\", r"\midrule"]
    for one in summaries(records):
        cells = [_cell(one, m, r"\textbf{{{}}}", r"\underline{{{}}}").replace("±", r"$\pm$") for m in MEASURES]
        lines.append(f"{latex(one.group)} & {' & '.join(cells)} \\\\")
    note = r"\par\footnotesize bold: best last accuracy; underlined: paired seeds do not tell it from the best"
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", note, r"\end{table}"]) + "\n"


def _cell(one: Summary, measure: str, best: str, equal: str) -> str:
    value = one.values.get(measure)
    if value is None:
        return "-"
    text = f"{value[0]:.2f}" if value[1] is None else f"{value[0]:.2f} ± {value[1]:.2f}"
    if measure != "last_accuracy":
        return text
    return best.format(text) if one.best else equal.format(text) if one.equal else text


TEXTS: Mapping[str, Callable[[Sequence[Record]], str]] = {"csv": to_csv, "markdown": to_markdown, "latex": to_latex}


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
            writer.add_hparams(_plain_parameters(record), dict(record.metrics), run_name=".")
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
        for key, value in _plain_parameters(record).items():
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
        config = _plain_parameters(record)
        run = wandb.init(
            mode="offline", project="tosca", dir=str(out), name=record.name, group=record.group, config=config
        )
        for task, value in enumerate(record.curve):
            run.log({"task": task + 1, "accuracy_after_task": value})
        run.summary.update(dict(record.metrics))
        run.finish()


def _plain_parameters(record: Record) -> dict[str, Any]:
    return {"seed": record.seed} | {
        k: v if isinstance(v, int | float) else _text(v) for k, v in record.parameters.items()
    }


TOOLS: Mapping[str, tuple[str, Callable[[Sequence[Record], Path], None]]] = {
    "parquet": ("pyarrow", to_parquet),
    "tensorboard": ("tensorboard", to_tensorboard),
    "mlflow": ("mlflow", to_mlflow),
    "wandb-offline": ("wandb", to_wandb),
}
