"""`tosca train` without its command line: a configuration and a store in, a run directory out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.config import Resolved, TrainConfig, to_toml
from tosca_cache.devices import resolve_device
from tosca_cache.errors import ToscaWarning
from tosca_cache.evaluate.audit import LEAKS
from tosca_cache.evaluate.metrics import accuracy_curve
from tosca_cache.evaluate.summary import mean_and_spread, to_json
from tosca_cache.files import write_json, write_text
from tosca_cache.learners.base import check_memory
from tosca_cache.learners.files import FILE, save_learner
from tosca_cache.learners.options import configured_learner, configured_options, leaks_task
from tosca_cache.learners.tosca import Tosca
from tosca_cache.report.figures import save_figures
from tosca_cache.runs.directory import METRICS, RunDirectory, origin, run_files
from tosca_cache.runs.experiment import (
    Evaluation,
    Reporter,
    Trained,
    evaluate_trained,
    make_engine,
    make_stream,
    train_stream,
)
from tosca_cache.store import Store
from tosca_cache.store.spec import FROZEN
from tosca_cache.tasks import load_splits, memory_for_features
from tosca_cache.text import printable

MOST_SECONDS = 1e10  # centuries


def train_run(resolved: Resolved, store: Store, runs: Path, reporter: Reporter | None = None) -> Path:
    """Trains every seed of a configuration on a store and writes a new run directory.

    Everything that can be wrong with the request is found before the directory is made.

    Returns the path of the run.
    """
    config = resolved.config
    device = resolve_device(config.device)
    start = perf_counter()
    splits = load_splits(store, config.incremental, most=memory_for_features())
    streams = [make_stream(config, splits, store.class_names, seed, store.domain_names) for seed in config.seeds]
    engine = make_engine(config, streams[0], len(config.seeds))
    check_memory(configured_learner(config, config.seeds[0], device, engine), streams[0])
    seconds = _extraction_seconds(store) | {"read_store": perf_counter() - start}
    if engine.compile_seconds:
        seconds["compile"] = engine.compile_seconds
        seconds["read_store"] -= engine.compile_seconds
    run = RunDirectory(runs, config.dataset)
    if leaks_task(config):
        run.log(f"every accuracy below comes from batch routing, which {LEAKS}")
    made = origin(store, device)
    made |= {"store": made["store"] | {"specification": store.spec.to_dict()}, "engine": engine.name}
    made |= {"settings_from": resolved.origin, "ignored_settings": resolved.ignored}
    with run_files(run.path):
        write_text(run.path / "config.toml", to_toml(config))
        write_json(run.path / "provenance.json", made)
    results = []
    for seed, stream in zip(config.seeds, streams, strict=True):
        run.log(f"seed {seed} begins")
        trained = train_stream(stream, configured_learner(config, seed, device, engine), reporter)
        if trained.learner.diverged:
            run.log(f"seed {seed} diverged: {trained.learner.diverged}")
        results.append((trained, evaluate_trained(trained)))
        write_seed(run, config, *results[-1])
    metrics = collect_metrics(config, results, seconds, store.spec.features)
    with run_files(run.path):
        write_json(run.path / METRICS, metrics)
    _draw(run, metrics)
    return run.finish()


def _draw(run: RunDirectory, metrics: Mapping[str, Any]) -> None:
    """The pictures; a run of hours is not lost for those."""
    try:
        with run_files(run.path):
            save_figures(metrics, run.path)
    except (ImportError, RuntimeError, ValueError) as error:  # matplotlib's settings are anybody's
        reason = " ".join(str(error).split())[:200]
        run.log(f"no pictures: {reason}")
        warnings.warn(f"the pictures could not be drawn: {reason}", ToscaWarning, stacklevel=3)


def _extraction_seconds(store: Store) -> dict[str, float]:
    """What stage one took, if the store's provenance says so (its last run, if it was interrupted)."""
    last = store.provenance.get("last_run")
    seconds = last.get("seconds") if isinstance(last, dict) else None
    if not isinstance(seconds, int | float) or not 0 <= seconds < MOST_SECONDS:
        return {}
    return {"extract": float(seconds)}


def write_seed(run: RunDirectory, config: TrainConfig, trained: Trained, evaluation: Evaluation) -> None:
    """Writes learner, predictions and losses of one seed, and logs its R."""
    outcome, learner, folder = trained.outcome, trained.learner, run.path / f"seed-{trained.seed}"
    original = partial(trained.stream.as_labels, labels="original")
    modules = {}
    if evaluation.outputs is not None:
        modules = {"entropy": evaluation.outputs[0], "module_prediction": original(evaluation.outputs[1])}
    with run_files(folder):
        folder.mkdir()
        save_learner(folder / FILE, learner, configured_options(config), trained.stream)
        _save_arrays(
            folder / "predictions.npz",
            {
                "row": outcome.rows,
                "label": original(outcome.labels),
                "task": outcome.tasks,
                "class_order": trained.stream.order,
            }
            | modules
            | {f"prediction_after_{t}": original(p.labels) for t, p in enumerate(outcome.predictions)}
            | {f"module_after_{t}": p.modules for t, p in enumerate(outcome.predictions) if p.modules is not None},
        )
        if isinstance(learner, Tosca):
            _save_arrays(folder / "losses.npz", {f"task_{t}": losses for t, losses in enumerate(learner.losses)})
    for t, row in enumerate(outcome.R):
        run.log(f"seed {trained.seed} task {t}: {printable(json.dumps(trained.stream.names(t), ensure_ascii=False))}")
        run.log(f"seed {trained.seed} after task {t}: " + " ".join(f"{a:.2f}" for a in row[: t + 1]))


def _save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def collect_metrics(
    config: TrainConfig,
    results: Sequence[tuple[Trained, Evaluation]],
    seconds: dict[str, float],
    features: str = FROZEN,
) -> dict[str, Any]:
    """The contents of metrics.json: R and metrics as means over seeds, their spread, and each seed's own.

    features: `frozen`, or how the backbone was adapted; see `StoreSpec.features`.
    """
    mean, spread = mean_and_spread([e.metrics for _, e in results])
    conditions, conditions_spread = mean_and_spread([e.conditions for _, e in results])
    sizes = [trained.stream.sizes for trained, _ in results]
    stages = {name: sum(e.seconds[name] for _, e in results) for name in results[0][1].seconds}
    value: dict[str, Any] = {
        "dataset": config.dataset,
        "method": config.method,
        "router": results[0][0].learner.router_name if isinstance(results[0][0].learner, Tosca) else None,
        "leaks": LEAKS if leaks_task(config) else None,
        "diverged": {trained.seed: trained.learner.diverged for trained, _ in results if trained.learner.diverged},
        "incremental": config.incremental,
        "features": features,
        "task_sizes": sizes[0] if all(each == sizes[0] for each in sizes) else None,  # domains come in another order
        "R": np.mean([t.outcome.R for t, _ in results], axis=0),
        "accuracy_curve": np.mean([accuracy_curve(t.outcome.R, t.outcome.counts) for t, _ in results], axis=0),
        **mean,
        "spread": spread,
        "routing_batch_size": config.routing_batch_size,
        "last_accuracy_by_condition": conditions,
        "last_accuracy_by_condition_spread": conditions_spread,
        "seconds": seconds | stages,
        "seeds": {trained.seed: _seed_metrics(trained, evaluation) for trained, evaluation in results},
    }
    return to_json(value)


def _seed_metrics(trained: Trained, evaluation: Evaluation) -> dict[str, Any]:
    stream = trained.stream
    domains = {"domains": stream.domain_names, "task_sizes": stream.sizes} if stream.domain_names else {}
    return domains | {
        "tasks": [stream.names(number) for number in range(len(stream))],
        "R": trained.outcome.R,
        "test_rows": trained.outcome.counts,
        **evaluation.metrics,
        "last_accuracy_by_condition": evaluation.conditions,
        "seconds": evaluation.seconds,
    }
