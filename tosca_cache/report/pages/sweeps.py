"""The part of a sweep: parallel coordinates, effects, accuracy against time, the choice and why, and what was lost."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tosca_cache.report.pages.blocks import Block, Cell, Facts, Figure, Part, Table, Value, origin_facts, repeat_facts
from tosca_cache.report.pages.charts import Bar, Point, bars, interval, scatter
from tosca_cache.report.pages.parallel import parallel_blocks
from tosca_cache.report.pages.runs import FEW_SEEDS
from tosca_cache.report.pages.svg import number
from tosca_cache.report.sweeps import plain, point_words
from tosca_cache.report.tables import with_spread

MOST_ROWS, MOST_EFFECTS, MOST_LOST, LEAST_LINES = 200, 8, 100, 3


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
        ("settings tried, cells", _tried(sweep, report)),
    ]
    about: list[tuple[str, Cell]] = [
        ("data", sweep.get("dataset") or ""),
        ("maximised", metric.replace("_", " ")),
        ("chosen by", report.get("how", "the search has not ended yet")),
        ("command", sweep.get("command") or "not recorded"),
        ("ledger", sweep["path"]),
    ]
    sections = [("Choice", _choice(sweep, report))] if report else []
    for group in sweep["groups"]:
        if group.get("report"):
            sections.append((f"Report: {group['how']}", [_settings(group, metric)]))
        else:
            sections.append((f"Search: {group['how']}", _group(group, metric)))
    sections.append(("Provenance", _provenance(sweep)))
    return Part(sweep["name"], "Sweep", about, numbers, _warnings(sweep, report), sections)


def _tried(sweep: Value, report: Value) -> str:
    if report:
        return f"{report['settings']:,}, {report['cells']:,}"
    return f"{sum(len(group['settings']) for group in sweep['groups']):,}, {sweep['cells']:,}"


def _warnings(sweep: Value, report: Value) -> list[str]:
    said = list(sweep.get("warnings") or ())
    if "test rows" in report.get("how", ""):
        said.append("The setting was chosen on test rows (test-oracle): its accuracy on them is no result.")
    if sweep.get("leaks"):
        said.append("Some settings route whole batches, which leaks the task through the order of the test file.")
    if report and len(report.get("report_seeds", ())) < FEW_SEEDS:
        said.append("The report has fewer than three seeds: differences may be chance.")
    if sweep.get("lost"):
        said.append(f"{len(sweep['lost'])} cells diverged or failed; their reasons stand below.")
    return said


def _choice(sweep: Value, report: Value) -> list[Block]:
    metric, found = sweep["metric"], report.get("report", [])
    if not found:
        return []
    name, scored = metric.replace("_", " "), next(iter(report.get("top", ())), None)
    tests = [(f["name"], with_spread(**f[metric]) + (f", {f['lost']} seeds lost" if f["lost"] else "")) for f in found]
    rows: list[tuple[str, Cell]] = [
        ("setting", point_words(found[0]["point"])),
        ("rule", f"highest mean {name}, {report['how']}"),
        ("held-out score", with_spread(scored["mean"], scored["spread"]) if scored else ""),
        *((f"test score, {which}", said) for which, said in tests),
    ]
    reads = "What was chosen, by which rule, and what fresh runs of it on all train rows are worth on the test rows."
    return [Facts("The chosen setting", rows, reads)]


def _point(label: str, name: str, value: Value, more: Sequence[Cell], colour: int = 0) -> Bar:
    """A mean with one standard deviation on both sides."""
    mean, spread = value["mean"], value["spread"]
    tip = f"{name}: {with_spread(mean, spread)}"
    return Bar(label, mean, *interval(mean, spread), colour=colour, tip=tip, more=more)


def _group(group: Value, metric: str) -> list[Block]:
    settings, keys = group["settings"], group["keys"]
    if not settings:
        return [Facts("No setting has a score yet", [("cells", group["counted"])])]
    blocks: list[Block] = []
    if len(settings) >= LEAST_LINES and keys:
        blocks += parallel_blocks(settings, keys, metric)
    blocks += [_effect(effect) for effect in group["effects"][:MOST_EFFECTS]]
    return [*blocks, *_against(settings, metric), _settings(group, metric)]


def _settings(group: Value, metric: str) -> Table:
    settings, keys = group["settings"], group["keys"]
    rows: list[list[Cell]] = [
        [*(_value(s["point"].get(key)) for key in keys), s["mean"], s["spread"], s["seeds"], s["seconds"]]
        for s in settings[:MOST_ROWS]
    ]
    reads = f"Best first. {group['counted']}."
    columns = [*keys, metric.replace("_", " "), "spread", "seeds", "train seconds"]
    marks = [s["mark"] for s in settings[:MOST_ROWS]]
    return Table("Settings", reads, columns, rows, marks, more=max(0, len(settings) - MOST_ROWS), wide=True)


def _value(value: object) -> Cell:
    """A value of a setting in a table."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}", float(value)
    return "" if value is None else plain(value)


def _effect(effect: Value) -> Figure:
    key, levels = effect["key"], effect["levels"]
    found = [_point(lv["label"], f"{key} {lv['label']}", lv, [lv["spread"], lv["n"], lv["best"]]) for lv in levels]
    best = max(levels, key=lambda level: level["mean"])
    reads = (
        "Mean over all cells with the value, whatever the other parameters are; lines are one standard deviation. "
        f"The best mean is {best['mean']:.2f} at {best['label']}; the means differ by {effect['reach']:.2f} points."
    )
    columns = [key, "mean", "spread", "cells", "best"]
    return bars(f"Effect of {key}", reads, found, "score (%)", columns, from_zero=False)


def _against(settings: Sequence[Value], metric: str) -> list[Figure]:
    """Accuracy against what it costs."""
    found, near_zero = [], "percent of the modules' weights near 0 (at most 0.001)"
    for key, title, x_title, better in (
        ("seconds", "Accuracy against time", "train seconds a cell", "left."),
        ("sparsity", "Accuracy against sparsity", near_zero, "right: few weights, many right."),
    ):
        values, log = [(s.get(key), s) for s in settings], key == "seconds"
        pairs = [(float(v), s) for v, s in values if isinstance(v, int | float) and (v > 0 or not log)]
        if len({v for v, _ in pairs}) < 2:
            continue
        points = []
        for v, s in pairs:
            said = f"{with_spread(s['mean'], s['spread'])}, {x_title.split(' (')[0]} {number(v)}"
            points.append(Point(v, s["mean"], f"{point_words(s['point'])}: {said}", mark=s["mark"]))
        reads = f"Each point is a setting, its mean over the seeds; best is up and to the {better}"
        found.append(scatter(title, reads, points, x_title, metric.replace("_", " "), log=log))
    return found


def _provenance(sweep: Value) -> list[Block]:
    blocks: list[Block] = []
    if sweep.get("lost"):
        rows: list[list[Cell]] = [
            [c["state"], point_words(c["point"]), c["seed"], c["reason"]] for c in sweep["lost"][:MOST_LOST]
        ]
        reads = (
            "Cells without a result, with the reason that was recorded; the same sweep again tries those that failed."
        )
        columns, more_lost = ["state", "setting", "seed", "reason"], max(0, len(sweep["lost"]) - MOST_LOST)
        blocks.append(Table("Diverged and failed cells", reads, columns, rows, more=more_lost))
    base: list[list[Cell]] = [[k, point_words({"": v}).strip()] for k, v in sweep["base"].items()]
    more: list[tuple[str, Cell]] = [
        ("stores in the ledger", ", ".join(sweep["stores"])),
        ("seeds of the report", ", ".join(map(str, (sweep.get("report") or {}).get("report_seeds", [])))),
    ]
    blocks.append(origin_facts(sweep.get("made") or {}, more))
    blocks.append(
        Table("What all settings share", "Parameters with one value in all cells.", ["setting", "value"], base)
    )
    chosen, ledger = (shlex.quote(sweep[name]) for name in ("best_path", "path"))
    repeat = [
        ("the sweep", sweep.get("command")),
        ("the chosen setting", f"tosca train --config {chosen}"),
        ("every setting's numbers", f"tosca export-runs {ledger} --to csv"),
    ]
    return [*blocks, repeat_facts(repeat)]
