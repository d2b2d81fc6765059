"""What a report says of a run, as plain JSON values: its metrics, and what its predictions tell about tasks and classes."""

from __future__ import annotations

import shlex
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import RunError, ToscaError
from tosca_cache.evaluate.summary import to_json
from tosca_cache.files import Limit, read_limited
from tosca_cache.runs.directory import read_json, read_metrics, store_used
from tosca_cache.store import Store

MOST_PAIRS = 500
NOTABLE_ERROR = 0.03  # relative, of the features against float32
Arrays = Mapping[str, NDArray[Any]]


def run_facts(run: Path) -> dict[str, Any]:
    """What the folder of a run says; reads no features. Raises `RunError` if its metrics or predictions are damaged.

    Keys: kind, name, path, metrics (metrics.json), provenance, settings, command, repeat; task_confusion [T, T] in percent
    of a true task's rows; classes: names, accuracy, test_rows, taken_for, pairs (true, answered, times, percent).
    """
    metrics, provenance = read_metrics(run), read_json(run / "provenance.json")
    seeds = {seed: read_predictions(run / f"seed-{seed}" / "predictions.npz") for seed in metrics["seeds"]}
    names = _class_names(metrics, seeds, provenance)
    facts = {
        "kind": "run",
        "name": run.name,
        "path": str(run),
        "metrics": metrics,
        "provenance": provenance,
        "settings": _settings(run / "config.toml"),
        "command": command_text(provenance.get("command")),
        "repeat": f"tosca train --config {shlex.quote(str(run / 'config.toml'))}",
        "warnings": store_warnings(provenance),
        "task_confusion": task_confusion([found for found in seeds.values() if found], len(metrics["R"])),
        "classes": _classes([found for found in seeds.values() if found], names),
    }
    return to_json(facts)


def command_text(words: Any) -> str | None:
    """A command (its words) as it is typed, without the folder of the program; None if it is not known."""
    if not isinstance(words, list) or not words:
        return None
    first, *rest = map(str, words)
    return shlex.join([Path(first).name, *rest])


def task_confusion(seeds: Sequence[Arrays], tasks: int) -> list[list[float | None]] | None:
    """Percent of the rows of each true task that each task answered, [T, T], of all seeds; None without predictions."""
    counts = np.zeros((tasks, tasks))
    for found in seeds:
        sent, true = found["module"] if "module" in found else _task_of_answer(found), found["task"]
        if sent is None or not len(true) or max(true.max(), sent.max()) >= tasks or min(true.min(), sent.min()) < 0:
            continue
        np.add.at(counts, (true, sent), 1)
    if not counts.any():
        return None
    total = counts.sum(1, keepdims=True)
    return [
        [100 * v / n if n else None for v in row] for row, (n,) in zip(counts.tolist(), total.tolist(), strict=True)
    ]


def _task_of_answer(found: Arrays) -> NDArray[np.int64] | None:
    """The task that brought each answered class; None where a class belongs to several tasks (domains)."""
    label, task = found["label"], found["task"]
    bring: dict[int, int] = {}
    for c, t in zip(label.tolist(), task.tolist(), strict=True):
        if bring.setdefault(c, t) != t:
            return None
    return np.array([bring.get(c, 0) for c in found["answer"].tolist()], dtype=np.int64)


def confused_rows(seeds: Iterable[Arrays]) -> list[tuple[tuple[int, int], Counter[int]]]:
    """Pairs of a class and another that its rows were answered as, the most frequent first, with these test rows."""
    wrong: dict[tuple[int, int], Counter[int]] = {}
    for found in seeds:
        triples = zip(*(found[name].tolist() for name in ("label", "answer", "row")), strict=True)
        for c, other, row in triples:
            if c != other:
                wrong.setdefault((c, other), Counter())[row] += 1
    return sorted(wrong.items(), key=lambda item: (-item[1].total(), item[0]))


def _classes(seeds: Sequence[Arrays], names: Mapping[int, str]) -> dict[str, Any] | None:
    """Accuracy by class and confused pairs, all seeds together."""
    if not seeds:
        return None
    rows = Counter(np.concatenate([found["label"] for found in seeds]).tolist())
    pairs = [(c, other, counts.total()) for (c, other), counts in confused_rows(seeds)]
    wrong, most = Counter[int](), dict[int, int]()
    for c, other, count in pairs:
        wrong[c] += count
        most.setdefault(c, other)
    named = {c: names.get(c, f"class {c}") for c in {*rows, *(other for _, other, _ in pairs)}}
    classes = sorted(rows)
    return {
        "names": [named[c] for c in classes],
        "accuracy": [100 * (1 - wrong[c] / rows[c]) for c in classes],
        "test_rows": [rows[c] // len(seeds) for c in classes],
        "taken_for": [named[most[c]] if c in most else "" for c in classes],
        "pairs": [[named[c], named[other], n, 100 * n / rows[c]] for c, other, n in pairs[:MOST_PAIRS]],
    }


def _class_names(
    metrics: Mapping[str, Any], seeds: Mapping[str, Arrays | None], provenance: Mapping[str, Any]
) -> dict[int, str]:
    """The name of each label of the store: from the tasks of a seed, or (of domains) from the store."""
    for seed, found in seeds.items():
        tasks = metrics["seeds"][seed].get("tasks")
        if found is None or tasks is None or metrics.get("incremental") == "domains":
            continue
        named, order = [name for task in tasks for name in task], found["class_order"].tolist()
        if len(named) == len(order):
            return dict(zip(order, named, strict=True))
    store = store_of(provenance)
    return {} if store is None else dict(enumerate(store.class_names))


def store_of(provenance: Mapping[str, Any]) -> Store | None:
    """The store of a run where the run found it; None if it is not there any more, or another one."""
    with suppress(ToscaError, OSError):
        return store_used(provenance, Path())
    return None


def store_warnings(provenance: Mapping[str, Any]) -> list[str]:
    """What is to be known of the store that numbers come from, if it is still where it was."""
    store = store_of(provenance)
    return [] if store is None else precision_warnings(store)


def precision_warnings(store: Store) -> list[str]:
    """Whether the features of a store are far from float32."""
    error = store.provenance.get("relative_error_against_float32")
    if not isinstance(error, int | float) or error <= NOTABLE_ERROR:
        return []
    return [
        f"The features are far from float32: relative error {error:.3f} (`tosca extract --precision fp32` avoids it)."
    ]


def _settings(path: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(read_limited(path, Limit.CONFIG).decode())
    except (OSError, ValueError):
        return {}
    return {key: value for table in tables.values() if isinstance(table, dict) for key, value in table.items()}


def read_predictions(path: Path) -> dict[str, NDArray[Any]] | None:
    """What a seed predicted after its last task; None if there is no such file.

    Keys: row, label, task and answer of each test row, [n]; module (what answered it), if there are any; class_order.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            last = max(int(n.rpartition("_")[2]) for n in file.files if n.startswith("prediction_after_"))
            named = {f"prediction_after_{last}": "answer", f"module_after_{last}": "module"}
            named |= {name: name for name in ("row", "label", "task", "class_order")}
            found = {named[n]: file[n].astype(np.int64) for n in file.files if n in named}
        rows = len(found["label"])
        if any(found[n].shape != (rows,) for n in ("row", "task", "answer", *({"module"} & found.keys()))):
            raise ValueError("its arrays are of different lengths")
    except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
        raise RunError(f"predictions cannot be read: {error}", where=path, remedy="train the run again") from error
    return found
