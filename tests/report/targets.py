"""Facts of every kind for pages, made up, and small or large as asked."""

import numpy as np

from tosca_cache.report.compare import PLAIN
from tosca_cache.report.tables import over_seeds

CONDITIONS = ("per_sample", "batch_shuffled", "batch_in_order", "oracle", "nearest_class_mean", "lda", "pool")
MEASURED = ("average_accuracy", "last_accuracy", "forgetting", "task_identification_accuracy")
MEASURED += ("accuracy_given_right_task",)
# Names that HTML, a terminal, a spreadsheet, LaTeX or Markdown would take for more than text.
EVIL = ["</script><script>alert(1)</script>", "</script><!--", "&amp;", "<b>", "\"'", "a\nb", "\u202egnitirw", "é ß"]
EVIL += ["[red]x[/red]", "\x00\x1b[31m", "=cmd()", "-1+1", "@x", "$x_1$", "100% & more", "#1^2~3", "{", "}", "\\\\"]
EVIL += ["[5em]", "\\input{/etc/passwd}", "|x|", "`x`", "*b*_i_"]


def run_values(names=("ant", "bee", "cat", "dog"), tasks=2, seeds=(1993, 1994, 1995), leaks=None):
    """Facts of a run whose classes have these names."""
    generator, per = np.random.default_rng(len(names)), max(1, len(names) // tasks)

    def numbers(keys, low, high):
        return {key: float(generator.uniform(low, high)) for key in keys}

    metrics = {"dataset": "made-up", "method": "tosca", "router": "sample", "leaks": leaks, "diverged": {}}
    metrics |= {"incremental": "classes", "task_sizes": [per] * tasks, "routing_batch_size": 48, "seeds": {}}
    metrics |= {"seconds": {"train": 1.5, "evaluate": 0.25}, "spread": dict.fromkeys(MEASURED, 0.5)}
    order = [list(names[t * per : t * per + per]) for t in range(tasks)]
    for seed in seeds:
        R = [[float(generator.uniform(40, 99)) if j <= i else None for j in range(tasks)] for i in range(tasks)]
        metrics["seeds"][str(seed)] = {"R": R, "test_rows": [10] * tasks, "tasks": order}
    R = np.mean([np.array(s["R"], dtype=float) for s in metrics["seeds"].values()], axis=0)
    metrics["R"] = [[None if np.isnan(v) else float(v) for v in row] for row in R]
    metrics["accuracy_curve"] = [float(np.mean(R[t, : t + 1])) for t in range(tasks)]
    metrics |= numbers(MEASURED, 10, 90)
    metrics["last_accuracy_by_condition"] = numbers(CONDITIONS, 10, 90)
    metrics["last_accuracy_by_condition_spread"] = dict.fromkeys(CONDITIONS, 0.25)
    other = [*names[1:], names[0]]
    classes = {"names": list(names), "accuracy": list(generator.uniform(0, 100, len(names)))}
    classes |= {"test_rows": [5] * len(names), "taken_for": other}
    classes["pairs"] = [[a, b, 3, 12.5] for a, b in zip(names[:500], other, strict=False)]
    suspect = {"path": names[0], "label": names[0], "probability": 0.01, "instead": other[0], "key": None}
    confused = {"true": names[0], "answered": other[0], "photos": [{"key": "k", "caption": names[0]}]}
    store = {"path": "cache/x", "fingerprint": "0" * 64}
    return {
        "kind": "run",
        "name": names[0] or "run",
        "path": f"runs/{names[0]}",
        "metrics": metrics,
        "warnings": [],
        "provenance": {"tosca_cache": "1", "store": store, "settings_from": {"lr": "default"}},
        "settings": {"lr": 0.025, "class_order": list(names)},
        "command": "tosca train --dataset made-up",
        "repeat": "tosca train --config x",
        "task_confusion": [[100.0 / tasks] * tasks for _ in range(tasks)],
        "classes": classes,
        "photos": {"confused": [confused], "suspects": [suspect]},
    }


def sweep_values(settings=12, words=("sgd", "adam")):
    """Facts of a sweep of so many settings."""
    generator, found = np.random.default_rng(settings), []
    for n in range(settings):
        point = {"lr": float(10 ** generator.uniform(-3, -1)), "l1": float(generator.choice([0, 1e-4, 5e-4]))}
        one = {"point": point | {"optimizer": words[n % len(words)]}, "mean": float(generator.uniform(50, 99))}
        seconds = float(generator.uniform(0.1, 9))
        found.append(one | {"spread": 0.5, "seeds": 3, "seconds": seconds, "diverged": False, "mark": f"g0-s{n}"})
    found.sort(key=lambda s: -s["mean"])
    for n, one in enumerate(found):
        one["mark"] = f"g0-s{n}"
    final = {"point": found[0]["point"], "seeds": 3, "lost": 0, "last_accuracy": {"mean": 91.25, "spread": 0.75}}
    levels = [{"label": w, "mean": 80.0 + n, "spread": 1.0, "n": 6, "best": 99.0} for n, w in enumerate(words)]
    group = {"how": "scored on train rows held out", "store": "0" * 64, "keys": ["lr", "l1", "optimizer"]}
    group |= {"counted": f"{settings * 3} cells done", "settings": found}
    report = {"how": "chosen on 20% of each class's train rows held out", "metric": "last_accuracy"}
    report |= {"settings": settings, "cells": settings * 3, "report_seeds": [1, 2, 3]}
    report["top"] = [{k: found[0][k] for k in ("point", "mean", "spread", "seeds")}]
    report["report"] = [final | {"name": "chosen"}, final | {"name": "base setting", "point": {}}]
    return {
        "kind": "sweep",
        "name": "made-up-sweep.sqlite",
        "path": "runs/made-up-sweep.sqlite",
        "best_path": "runs/made-up-sweep.best.toml",
        "dataset": "made-up",
        "metric": "last_accuracy",
        "cells": settings * 3,
        "stores": ["0123456789abcdef"],
        "leaks": False,
        "report": report,
        "base": {"epochs": 20},
        "lost": [{"state": "failed", "point": {"lr": 9.0}, "seed": 1, "reason": "memory <is> not enough"}],
        "groups": [group | {"effects": [{"key": "optimizer", "reach": 2.0, "levels": levels}]}],
    }


def comparison_values(accuracies=None):
    """Facts of a comparison: {learner: last accuracy of each seed}."""
    accuracies = accuracies or {"lda": (90.0, 91.0, 92.0), "nmc": (80.0, 81.0, 81.5), "ranpac": (90.5, 90.5, 92.5)}
    columns, rows = ["average_accuracy", "last_accuracy", "forgetting", "stored_numbers", "train_seconds"], []
    for n, (name, values) in enumerate(accuracies.items()):
        costs = {"forgetting": 3.0, "stored_numbers": 100 * (n + 1), "train_seconds": 0.5 * (n + 1)}
        seeds = [costs | {"average_accuracy": v + 2, "last_accuracy": v, "accuracy_curve": [99, 95, v]} for v in values]
        means = {c: over_seeds([s[c] for s in seeds]) for c in columns}
        row = PLAIN | {"method": name, "source": "somebody", "rehearsal": n == 2, "values": means}
        rows.append(row | {"seeds": {str(s): one for s, one in enumerate(seeds)}})
    rows.sort(key=lambda row: -row["values"]["last_accuracy"]["mean"])
    found = {"dataset": "made-up", "store": "cache/x", "fingerprint": "0" * 64, "incremental": "classes"}
    found |= {"task_sizes": [2, 2, 2], "init_cls": 2, "increment": 2, "shuffle": True, "shots": None}
    found |= {"seeds": [0, 1, 2], "columns": columns, "rows": rows}
    return {"kind": "comparison", "name": "made-up-compare.sqlite", "command": "tosca compare", "found": found}


def routes_values():
    """Facts of routes of two seeds."""
    values = {"last_accuracy": 90.0, "task_identification_accuracy": 80.0, "accuracy_given_right_task": 99.0}
    values |= {"without_modules": None, "seconds": 0.5}
    conditions = {"per_sample": 90.0, "oracle": 99.0, "batch_8_shuffled": 70.0, "batch_8_in_order": 95.0}
    routers = [{"sample": values, "pool": values | {"last_accuracy": 97.0 + seed}} for seed in (0, 1)]
    found = [{"run": "runs/x", "seed": s, "routers": one, "conditions": conditions} for s, one in enumerate(routers)]
    return {"kind": "routes", "name": "routes.json", "found": found}


def store_values(names=("ant", "bee")):
    """Facts of a store with one near duplicate and one image that could not be read."""
    of = [names[n % len(names)] for n in range(12)]
    points = [[float(n), float(n % 3), n % len(names), "train", f"train/{of[n]}/{n}.jpg", None] for n in range(12)]
    twins = {"test": names[0], "train": names[-1], "distance": 0.0, "test_class": names[0], "train_class": names[-1]}
    return {
        "kind": "store",
        "name": "made-up",
        "about": {"dataset": "made-up"},
        "rows": {"train": 10, "test": 5},
        "classes": [{"name": name, "train": 5, "test": 2} for name in names],
        "map": {"how": "two components", "points": points, "classes": list(names)},
        "duplicates": [twins],
        "constant": [],
        "skipped": [{"split": "train", "path": names[0], "why": "cut"}],
        "warnings": ["The features are far from float32: relative error 0.050"],
        "provenance": {"store": {"path": "cache/x", "fingerprint": "0" * 64}},
        "transform": {"resize": 32},
    }


def every_kind():
    """One of each."""
    return [run_values(), sweep_values(), comparison_values(), routes_values(), store_values()]
