"""The part of a sweep: parallel coordinates, effects, accuracy against time, the choice and why, and what was lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import log10
from typing import Any

from tosca_cache.report.pages.blocks import (
    Axis,
    Block,
    Brush,
    Cell,
    Facts,
    Figure,
    Part,
    Section,
    Table,
    Value,
    with_spread,
)
from tosca_cache.report.pages.charts import Bar, Point, bars, number, parallel, scatter, tag
from tosca_cache.report.pages.runs import FEW_SEEDS, settings_text

MOST_ROWS, MOST_EFFECTS, MOST_LOST, MOST_AXES = 200, 8, 100, 9


def sweep_part(sweep: Value) -> Part:
    """The part of a sweep; see `sweep.report_facts.sweep_facts` for what it is given."""
    report, metric = sweep.get("report") or {}, sweep["metric"]
    chosen = next(iter(report.get("report", ())), None)
    finals = chosen.get(metric) if chosen else None
    best = report.get("top") or []
    numbers = [
        (
            "chosen setting on test rows, fresh runs",
            with_spread(finals["mean"], finals["spread"]) if finals else "no report yet",
        ),
        ("its score in the search", with_spread(best[0]["mean"], best[0]["spread"]) if best else "none"),
        ("settings tried, cells", f"{sum(len(g['settings']) for g in sweep['groups'])}, {sweep['cells']}"),
    ]
    about: list[tuple[str, Cell]] = [
        ("data", sweep.get("dataset") or ""),
        ("maximised", metric.replace("_", " ")),
        ("chosen by", report.get("how", "the search has not ended yet")),
        ("command", sweep.get("command") or f"not recorded; show it again with: tosca sweep show {sweep['path']}"),
        ("ledger", sweep["path"]),
    ]
    sections = [Section("Choice", _choice(sweep, report))] if report else []
    sections += [Section(f"Search: {g['how']}", _group(g, metric)) for g in sweep["groups"]]
    sections.append(Section("Provenance", _provenance(sweep)))
    return Part(sweep["name"], "Sweep", about, numbers, _warnings(sweep, report), sections)


def _warnings(sweep: Value, report: Value) -> list[str]:
    said = []
    if "test rows" in report.get("how", ""):
        said.append("The setting was chosen on test rows (test-oracle): its accuracy on them is no result.")
    if sweep.get("leaks"):
        said.append("Some settings route whole batches, which leaks the task through the order of the test file.")
    if report and len(report.get("report_seeds", ())) < FEW_SEEDS:
        said.append("The report has fewer than three seeds: differences may be chance.")
    if report and not report.get("whole", True):
        said.append("The time budget ended the search before all settings were tried.")
    if sweep.get("lost"):
        said.append(f"{len(sweep['lost'])} cells diverged or failed; their reasons stand below.")
    return said


def _choice(sweep: Value, report: Value) -> list[Block]:
    metric = sweep["metric"]
    found = report.get("report", [])
    rows: list[tuple[str, Cell]] = []
    if found:
        scored = report["top"][0] if report.get("top") else None
        rows = [
            ("chosen", settings_text(found[0]["point"])),
            ("rule", f"highest mean {metric.replace('_', ' ')}, {report['how']}"),
            ("held-out score", with_spread(scored["mean"], scored["spread"]) if scored else ""),
            ("test score", with_spread(found[0][metric]["mean"], found[0][metric]["spread"])),
        ]
        if report.get("gap_to_the_honest_choice") is not None:
            rows.append(("choosing on test rows looks better by", f"{report['gap_to_the_honest_choice']:.2f} points"))
    shown = [
        Bar(
            f["name"],
            f[metric]["mean"],
            *_interval(f[metric]),
            colour=n,
            tip=f"{f['name']}: {with_spread(**f[metric])}",
        )
        for n, f in enumerate(found)
    ]
    blocks: list[Block] = [
        Facts(
            "The chosen setting",
            rows,
            "What was chosen, by which rule, and what it is worth on rows that no choice has seen.",
        )
    ]
    if shown:
        numbers = Table(
            "",
            "",
            ["setting", "mean", "spread", "seeds", "lost"],
            [[f["name"], f[metric]["mean"], f[metric]["spread"], f["seeds"], f["lost"]] for f in found],
        )
        reads = "Fresh runs on all train rows, scored on test rows; lines are one standard deviation over the seeds."
        says = "; ".join(bar.tip for bar in shown)
        blocks.append(
            Figure(
                "Chosen and base setting",
                reads,
                bars("Chosen and base setting", says, shown, metric.replace("_", " ")),
                numbers,
            )
        )
    return blocks


def _interval(value: Value) -> tuple[float | None, float | None]:
    mean, spread = value["mean"], value["spread"]
    return (None, None) if mean is None or spread is None else (mean - spread, mean + spread)


def _group(group: Value, metric: str) -> list[Block]:
    settings, keys = group["settings"], group["keys"]
    if not settings:
        return [Facts("No setting has a score yet", [("cells", group["counted"])])]
    blocks: list[Block] = []
    if len(settings) > 1 and keys:
        blocks += _parallel(settings, keys, metric)
    blocks += [_effect(effect) for effect in group["effects"][:MOST_EFFECTS]]
    blocks += _against(settings, metric)
    rows: list[list[Cell]] = [
        [settings_text(s["point"]), s["mean"], s["spread"], s["seeds"], s["seconds"]] for s in settings[:MOST_ROWS]
    ]
    reads = f"Best first. {group['counted']}."
    columns = ["setting", metric.replace("_", " "), "spread", "seeds", "train seconds"]
    more = max(0, len(settings) - MOST_ROWS)
    marks = [s["mark"] for s in settings[:MOST_ROWS]]
    blocks.append(Table("Settings", reads, columns, rows, marks=marks, search=False, more=more))
    return blocks


def _parallel(settings: Sequence[Value], keys: Sequence[str], metric: str) -> list[Block]:
    """An axis each varying parameter, the score last."""
    keys = list(keys)[:MOST_AXES]
    axes, ticks, scales = [], [], []
    for key in keys:
        axis, tick, scale = _axis(key, [s["point"].get(key) for s in settings])
        axes.append(axis), ticks.append(tick), scales.append(scale)
    scores = [s["mean"] for s in settings]
    name = metric.replace("_", " ")
    axis, tick, scale = _axis(name, scores, log=False)
    axes.append(axis), ticks.append(tick), scales.append(scale)
    lowest, highest = min(scores), max(scores)
    paths = []
    for s in reversed(settings):  # the best on top
        places = [_place(scales[n], axes[n], s["point"].get(key)) for n, key in enumerate(keys)]
        places.append(_place(scales[-1], axes[-1], s["mean"]))
        colour = (s["mean"] - lowest) / (highest - lowest) if highest > lowest else 1.0
        paths.append((s["mark"], f"{settings_text(s['point'])}: {with_spread(s['mean'], s['spread'])}", places, colour))
    says = f"{len(settings)} settings, {name} from {lowest:.2f} to {highest:.2f}; the best is {settings_text(settings[0]['point'])}."
    chart = parallel("Settings and their scores", says, [a.name for a in axes], ticks, paths)
    held = tag("div", chart, data_scales=json.dumps(scales))
    reads = "Each line is a setting; it crosses every axis at its value and ends at its score: light is high. Drag along an axis to keep some."
    return [Figure("Settings and their scores", reads, held, wide=True), Brush("Brushing", axes)]


def _axis(
    name: str, values: Sequence[Any], *, log: bool | None = None
) -> tuple[Axis, list[tuple[str, float]], dict[str, Any]]:
    """An axis of numbers (logarithmic if they span a factor of 50), or of words."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        words = sorted({_word(v) for v in values})
        scale = {"low": 0, "high": len(words) - 1, "log": False}
        return Axis(name, words), [(w, _at(scale, n)) for n, w in enumerate(words)], scale
    positive = min(numbers) > 0
    log = (positive and max(numbers) / min(numbers) >= 50) if log is None else log
    low, high = (log10(min(numbers)), log10(max(numbers))) if log else (float(min(numbers)), float(max(numbers)))
    scale = {"low": low, "high": high, "log": log}
    distinct = sorted(set(numbers))
    if len(distinct) > 6:
        spots = [low + (high - low) * n / 4 for n in range(5)]
        distinct = [10**spot if log else spot for spot in spots]
    shown = [(number(v), _at(scale, log10(v) if log else v)) for v in distinct]
    return Axis(name), [t for n, t in enumerate(shown) if n == 0 or t[1] - shown[n - 1][1] > 0.04], scale


def _word(value: Any) -> str:
    return "(none)" if value is None else settings_text({"": value}).strip()


def _place(scale: Value, axis: Axis, value: Any) -> float:
    if axis.values:
        return _at(scale, list(axis.values).index(_word(value)))
    return _at(scale, log10(value) if scale["log"] else float(value))


def _at(scale: Value, value: float) -> float:
    return (value - scale["low"]) / (scale["high"] - scale["low"]) if scale["high"] > scale["low"] else 0.5


def _effect(effect: Value) -> Figure:
    rows: list[list[Cell]] = [[lv["label"], lv["mean"], lv["spread"], lv["n"], lv["best"]] for lv in effect["levels"]]
    found = [
        Bar(
            lv["label"],
            lv["mean"],
            *_interval(lv),
            tip=f"{effect['key']} {lv['label']}: {with_spread(lv['mean'], lv['spread'])}",
        )
        for lv in effect["levels"]
    ]
    best = max(effect["levels"], key=lambda level: level["mean"])
    says = f"The best mean is {best['mean']:.2f} at {best['label']}; the means differ by {effect['reach']:.2f} points."
    numbers = Table("", "", [effect["key"], "mean", "spread", "cells", "best"], rows)
    reads = (
        "Mean over all cells with the value, whatever the other parameters are; lines are one standard deviation. "
        + says
    )
    return Figure(
        f"Effect of {effect['key']}", reads, bars(f"Effect of {effect['key']}", says, found, "score (%)"), numbers
    )


def _against(settings: Sequence[Value], metric: str) -> list[Figure]:
    """Accuracy against what it costs."""
    found = []
    for key, title, x_title, log in (
        ("seconds", "Accuracy against time", "train seconds a cell", True),
        (
            "l1",
            "Accuracy against the strength of sparsity",
            "l1 (weight of the penalty; more makes modules sparser)",
            True,
        ),
    ):
        values = [(s["seconds"] if key == "seconds" else s["point"].get("l1"), s) for s in settings]
        pairs = [(float(v), s) for v, s in values if isinstance(v, int | float) and v > 0]
        if len({v for v, _ in pairs}) < 2:
            continue
        points = [
            Point(
                v,
                s["mean"],
                f"{settings_text(s['point'])}: {with_spread(s['mean'], s['spread'])}, {x_title.split(' (')[0]} {number(v)}",
                mark=s["mark"],
            )
            for v, s in pairs
        ]
        best = max(pairs, key=lambda pair: pair[1]["mean"])
        says = f"The best setting, {best[1]['mean']:.2f}, is at {number(best[0])}."
        chart = scatter(title, says, points, x_title, metric.replace("_", " "), log=log)
        reads = (
            "Each point is a setting, its mean over the seeds; best is up and to the left."
            if key == "seconds"
            else "Each point is a setting; flat means that sparsity is free."
        )
        found.append(Figure(title, reads, chart))
    return found


def _provenance(sweep: Value) -> list[Block]:
    blocks: list[Block] = []
    if sweep.get("lost"):
        rows: list[list[Cell]] = [
            [c["state"], settings_text(c["point"]), c["seed"], c["reason"]] for c in sweep["lost"][:MOST_LOST]
        ]
        reads = "Cells without a result, with the reason that was recorded; `tosca sweep --retry` runs them again."
        blocks.append(
            Table(
                "Diverged and failed cells",
                reads,
                ["state", "setting", "seed", "reason"],
                rows,
                more=max(0, len(sweep["lost"]) - MOST_LOST),
            )
        )
    base: list[list[Cell]] = [[k, settings_text({"": v}).strip()] for k, v in sweep["base"].items()]
    facts: list[tuple[str, Cell]] = [
        ("stores", ", ".join(sweep["stores"])),
        ("tosca_cache", sweep.get("tosca_cache", "")),
        ("seeds of the report", ", ".join(map(str, (sweep.get("report") or {}).get("report_seeds", [])))),
    ]
    blocks.append(Facts("Where the numbers come from", facts))
    blocks.append(
        Table("What all settings share", "Parameters with one value in all cells.", ["setting", "value"], base)
    )
    repeat: list[tuple[str, Cell]] = [
        ("chosen setting", f"tosca train --config {sweep['best_path']}"),
        ("every cell", f"tosca sweep show {sweep['path']} --csv"),
    ]
    blocks.append(Facts("To repeat it", repeat, pre=True))
    return blocks
