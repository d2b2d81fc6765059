"""Runs what was published and sets ours beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

from tosca_cache.compare.request import CompareRequest
from tosca_cache.compare.run import CompareReporter, run_compare
from tosca_cache.config import TrainConfig, config_of
from tosca_cache.errors import RunError, UsageError
from tosca_cache.evaluate.summary import to_json
from tosca_cache.learners import LEARNERS
from tosca_cache.reproduce.expectation import Expectation
from tosca_cache.reproduce.features import Places, features_for


def reproduce(
    expectations: Sequence[Expectation],
    places: Places,
    *,
    on_note: Callable[[str], None] = lambda text: None,
    reporter: CompareReporter | None = None,
) -> list[dict[str, Any]]:
    """Every published value beside ours, as plain values: one entry a measure; see `_beside`.

    Arguments:
        on_note: told about stores that are found and made.

    Raises `UsageError` before anything is extracted if a learner is not there, `RunError` if one fails.
    """
    for expected in expectations:
        if expected.method not in LEARNERS:
            raise UsageError(
                f"the published values are of the learner {expected.method!r}, which is not registered",
                where=f"method of {expected.dataset}, {expected.source}",
                remedy=f"registered are {', '.join(sorted(LEARNERS))}; a learner of your own comes with --plugin FILE.py",
            )
    found = []
    for expected in expectations:
        store = features_for(expected, places, on_note=on_note)
        on_note(f"store: {store.path} ({store.spec.precision})")
        request = CompareRequest(
            _config(expected, places.device),
            (expected.method,),
            expected.seeds,
            {expected.method: expected.options} if expected.options else {},
        )
        (row,) = run_compare(request, store, reporter=reporter)["rows"]
        for seed, reason in row["failed"].items():
            raise RunError(reason, where=f"{expected.method}, seed {seed}", remedy="mend that, then run it again")
        found += _beside(expected, list(row["seeds"].values()), str(store.path), store.spec.precision)
    return found


def _config(expected: Expectation, device: str) -> TrainConfig:
    tasks = {key: getattr(expected, key) or None for key in ("increment", "init_cls", "task_sizes", "class_order")}
    shuffle = {} if expected.class_order else {"shuffle": expected.shuffle}
    return config_of({"dataset": expected.dataset, "device": device} | tasks | shuffle)


def _beside(
    expected: Expectation, results: Sequence[dict[str, Any]], store: str, precision: str
) -> list[dict[str, Any]]:
    """One entry for each published value: what it is, ours, published, difference (ours - published), and its source.

    A curve gives a list of each, and as its difference the one of largest size.
    """
    entries = []
    for measure, published in expected.values.items():
        ours = [result[measure] for result in results]
        entry: dict[str, Any] = {
            "dataset": expected.dataset,
            "method": expected.method,
            "measure": measure,
            "published": published,
            "published_spread": expected.spreads.get(measure),
            "seeds": expected.seeds,
            "source": expected.source,
            "note": expected.note,
            "store": store,
            "precision": precision,
        }
        if isinstance(published, list):
            mean = [fmean(column) for column in zip(*ours, strict=True)]
            if len(mean) != len(published):
                raise UsageError(
                    f"the published curve has {len(published)} tasks, ours {len(mean)}",
                    where=expected.source,
                    remedy="correct increment, init_cls or the curve",
                )
            gaps = [a - b for a, b in zip(mean, published, strict=True)]
            entry |= {"ours": mean, "difference": max(gaps, key=abs), "ours_spread": None}
        else:
            spread = stdev(ours) if len(ours) > 1 else None
            entry |= {"ours": fmean(ours), "difference": fmean(ours) - published, "ours_spread": spread}
        entries.append(entry)
    plain = to_json(entries)
    assert isinstance(plain, list)
    return plain
