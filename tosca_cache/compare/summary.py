"""From the cells of a comparison to its table, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tosca_cache.compare.cells import CompareRequest
from tosca_cache.config import TrainConfig
from tosca_cache.evaluate.audit import LEAKS
from tosca_cache.evaluate.summary import mean_and_spread, to_json
from tosca_cache.learners import learner_type
from tosca_cache.learners.options import options_of
from tosca_cache.learners.tosca import BATCH_ROUTER
from tosca_cache.runs.experiment import protocol_of
from tosca_cache.store import Store
from tosca_cache.sweep.ledger import DONE, LedgerCell

MEASURES = ("average_accuracy", "last_accuracy", "forgetting")
FEW_SHOT = ("performance_drop", "harmonic_mean")
COSTS = ("stored_numbers", "trainable_parameters", "train_seconds", "milliseconds")


def summary(request: CompareRequest, store: Store, cells: Sequence[LedgerCell]) -> dict[str, Any]:
    """The table of a comparison, as plain JSON values.

    Keys: dataset, store, fingerprint, features (`frozen`, or how the backbone was adapted), those of `_tasks`,
    shuffle, shots, seeds; columns: names of what was measured; rows: one a learner (see `_row`), best last accuracy first,
    bounds after all others.
    """
    config = request.config
    columns = columns_of(request)
    rows = [
        _row(name, request, columns, [cell for cell in cells if cell.content["setting"]["method"] == name])
        for name in request.methods
    ]
    return to_json(
        {
            "dataset": config.dataset,
            "store": str(store.path),
            "fingerprint": store.spec.digest(),
            "features": store.spec.features,
            **_tasks(config, store, request.seeds),
            "shuffle": config.shuffle,
            "shots": config.shots,
            "seeds": request.seeds,
            "columns": columns,
            "rows": sorted(rows, key=_place),
        }
    )


def columns_of(request: CompareRequest) -> tuple[str, ...]:
    """The numbers of a cell's result that are columns of the table."""
    return (*MEASURES, *(FEW_SHOT if request.config.shots is not None else ()), *COSTS)


def _tasks(config: TrainConfig, store: Store, seeds: Sequence[int]) -> dict[str, Any]:
    """What tasks are: incremental, and domains (their names, as listed), or task_sizes, init_cls and increment (None where
    the sizes were given), and tasks: {seed: the names of each task's classes}."""
    if config.incremental == "domains":
        return {"incremental": "domains", "domains": store.domain_names}
    protocols = {seed: protocol_of(config, seed) for seed in seeds}
    return {
        "incremental": "classes",
        "task_sizes": protocols[seeds[0]].sizes_of(len(store.class_names)),
        "init_cls": config.init_cls,
        "increment": protocols[seeds[0]].increment,
        "tasks": {seed: protocol.names_of(store.class_names) for seed, protocol in protocols.items()},
    }


def _row(name: str, request: CompareRequest, columns: Sequence[str], cells: Sequence[LedgerCell]) -> dict[str, Any]:
    """One learner: what it is, {column: {mean, spread}} over the seeds that it finished, each seed's own, its failures.

    options: those that differ from the learner's defaults. leaks: what an answer depends on besides its row, in words.
    """
    kind = learner_type(name)
    options = _changed(name, cells)
    leaks = LEAKS if options.get("router") == BATCH_ROUTER else None
    found = {cell.content["seed"]: cell.result for cell in cells if cell.state == DONE and cell.result is not None}
    return {
        "method": name,
        "source": kind.source,
        "rehearsal": kind.rehearsal,
        "transductive": kind.transductive or leaks is not None,
        "bound": kind.bound,
        "leaks": leaks,
        "options": options,
        "values": _values([found[seed] for seed in request.seeds if seed in found], columns),
        "seeds": {seed: found[seed] for seed in request.seeds if seed in found},
        "failed": {cell.content["seed"]: cell.reason for cell in cells if cell.state != DONE},
    }


def _changed(name: str, cells: Sequence[LedgerCell]) -> dict[str, Any]:
    setting = cells[0].content["setting"]
    defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in options_of(learner_type(name)).items()}
    given = {option: setting.get(f"{name}.{option}", default) for option, default in defaults.items()}
    return {option: value for option, value in given.items() if value != defaults[option]}


def _values(results: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Means and sample standard deviations; a value that is not defined for a seed makes the mean undefined."""
    if not results:
        return {}
    numbers = [{c: float("nan") if r[c] is None else float(r[c]) for c in columns} for r in results]
    mean, spread = mean_and_spread(numbers)
    return {column: {"mean": mean[column], "spread": spread[column]} for column in columns}


def _place(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    last = row["values"].get("last_accuracy", {"mean": -1.0})["mean"]
    return row["bound"], -last, row["method"]
