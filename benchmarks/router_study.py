"""Which router deserves to be the default: chosen from held-out train rows, then looked at on test rows.

    python benchmarks/router_study.py run NAME STORE INCREMENT [--tuned FILE.toml]   # one store, 5 seeds, two settings
    python benchmarks/router_study.py tables                                         # the rule, and all tables, as Markdown

`run` trains the published setting (and the one in FILE.toml) twice for every seed: on 80 % of each class's train rows, to
score every router on the other 20 %, and on all of them, to score every router on the test rows. It writes
results/router_study/NAME.json. `tables` reads these files and nothing else.

The rule: of the routers that are exemplar-free and need no views of test rows, the default is the one of highest last
accuracy on held-out train rows, averaged over stores and settings. Test rows play no part in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import torch
from common import RESULTS

from tosca_cache.config import Settings, TrainConfig, resolve
from tosca_cache.devices import describe_machine
from tosca_cache.evaluate.summary import mean_and_spread, to_json
from tosca_cache.learners.stacked_tosca import PretrainedTosca, Source, learn_stacked
from tosca_cache.routing import ROUTERS
from tosca_cache.runs.route import ask, leak_curve, route_again
from tosca_cache.store import open_store
from tosca_cache.sweep.scenario import Data, Scenario, make_scenario
from tosca_cache.tasks import load_splits
from tosca_cache.train.engines import choose_engine
from tosca_cache.train.stack import Member

SEEDS = (1993, 1994, 1995, 1996, 1997)
HELD_OUT = 0.2
FOLDER = RESULTS / "router_study"
CLOSED_FORMS = ("prototype", "ridge", "ridge-random", "lda")
# The routers of the recorded measurements that may not be the default (they keep train rows, or need views of test rows),
# and those that combine class scores; some have been removed since.
NOT_ELIGIBLE = ("knn", "contracon")
SOFT = ("soft-lda", "weighted-lda", "fused-lda", "fused-ridge", "fused", "fused-views", "product", "pool")
REPEATED = ("soft-lda alone", "weighted-lda alone", "fused-lda alone", "fused-ridge alone")  # as lda, as ridge-random


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("run")
    one.add_argument("name")
    one.add_argument("store", type=Path)
    one.add_argument("increment", type=int)
    one.add_argument("--tuned", type=Path, help="a configuration file with the tuned setting")
    verbs.add_parser("tables")
    arguments = parser.parse_args()
    if arguments.verb == "tables":
        print("\n".join(tables([json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))])))
        return
    found = study(arguments.store, arguments.increment, arguments.tuned)
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"name": arguments.name} | found, indent=1)
    (FOLDER / f"{arguments.name}.json").write_text(text + "\n", encoding="utf-8")


def study(path: Path, increment: int, tuned: Path | None) -> dict[str, Any]:
    """All routers on one store: held-out and test rows, published and tuned setting, every seed."""
    store = open_store(path)
    data = Data(*load_splits(store), tuple(store.class_names))
    configs = {"published": TrainConfig(dataset="study", increment=increment)}
    if tuned is not None:
        configs["tuned"] = replace(resolve(config=tuned).config, increment=increment, router="sample")
    start, settings = perf_counter(), {}
    for name, config in configs.items():
        settings[name] = {
            "setting": vars(Settings.of(config)),
            **{rows: list(measured(config, data, rows)) for rows in ("val", "test")},
        }
        print(f"{path.name}: {name} setting done after {perf_counter() - start:.0f} s", flush=True)
    machine = describe_machine(torch.device("cpu"))
    found = {"backbone": store.spec.backbone["name"], "increment": increment, "settings": settings, "machine": machine}
    plain = to_json(found | {"store": store.spec.digest(), "seconds": perf_counter() - start})
    assert isinstance(plain, dict)
    return plain


def measured(config: TrainConfig, data: Data, rows: str) -> Iterator[dict[str, Any]]:
    """For each seed, what every router and every way of routing batches is worth after the last task."""
    scenario = Scenario(rows, HELD_OUT)
    sources = [Source(make_scenario(scenario, config, data, seed), seed) for seed in SEEDS]
    settings, device = Settings.of(config), torch.device("cpu")
    engine = choose_engine("native", device, steps=0)
    records = learn_stacked(
        sources, [Member(settings, lane) for lane in range(len(SEEDS))], device=device, engine=engine
    )
    for source, record in zip(sources, records, strict=True):
        learner = PretrainedTosca(record, settings, seed=source.seed, engine=engine)
        for task in source.stream:
            learner.observe(task)
        stored = ask(source.stream, learner)
        views = stored.outputs.lazy.view_count
        names = [name for name in sorted(ROUTERS) if views or not ROUTERS[name].needs_views]
        yield {"seed": source.seed, "routers": route_again(stored, names), "conditions": leak_curve(stored)}


Cells = dict[str, dict[str, tuple[float, float]]]
"""Column -> row -> mean and standard deviation over seeds, percent."""


def columns(studies: list[dict[str, Any]], rows: str) -> Cells:
    """Last accuracies on held-out or on test rows: of routers, of classifiers without modules, and of the oracle."""
    found: Cells = {}
    for one in studies:
        for setting, values in one["settings"].items():
            each = []
            for entry in values[rows]:
                routed = {name: router["last_accuracy"] for name, router in entry["routers"].items()}
                alone = {f"{name} alone": router["without_modules"] for name, router in entry["routers"].items()}
                alone = {name: value for name, value in alone.items() if name not in REPEATED}
                each.append(
                    routed
                    | {name: value for name, value in alone.items() if value is not None}
                    | {"(the true task's module)": entry["conditions"]["oracle"]}
                    | {f"({name})": v for name, v in entry["conditions"].items() if name.startswith("batch_48")}
                )
            means, spreads = mean_and_spread(each)
            found[f"{one['name']}, {setting}"] = {name: (means[name], spreads[name]) for name in means}
    return found


def eligible(studies: list[dict[str, Any]]) -> list[str]:
    """The measured routers that may be the default."""
    measured = studies[0]["settings"]["published"]["val"][0]["routers"]
    return [name for name in sorted(measured) if name not in NOT_ELIGIBLE]


def tables(studies: list[dict[str, Any]]) -> list[str]:
    """The choice by the rule, what it costs, and both tables."""
    held, test = columns(studies, "val"), columns(studies, "test")
    names = eligible(studies)

    def average(cells: Cells, name: str) -> float:
        return mean(column[name][0] for column in cells.values())

    chosen = max(names, key=lambda name: average(held, name))
    runner_up = sorted(names, key=lambda name: average(held, name))[-2]
    lines = [
        f"Chosen by the rule: `{chosen}`, {average(held, chosen):.2f} % on held-out rows; next is `{runner_up}` with "
        f"{average(held, runner_up):.2f} %. On test rows:",
        "",
    ]
    lines += ["| | chosen | its classifiers alone | best in hindsight | costs | best closed form | best hard router |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for title, column in test.items():
        best = max(names, key=lambda name: column[name][0])
        alone = max((f"{name} alone" for name in CLOSED_FORMS), key=lambda name: column[name][0])
        hard = max((name for name in names if name not in SOFT), key=lambda n: column[n][0])
        lost = column[best][0] - column[chosen][0]
        lines.append(
            f"| {title} | {column[chosen][0]:.2f} | {column[f'{chosen} alone'][0]:.2f} | "
            f"{column[best][0]:.2f} `{best}` | {lost:.2f} | {column[alone][0]:.2f} `{alone.removesuffix(' alone')}` | "
            f"{column[hard][0]:.2f} `{hard}` |"
        )
    for title, cells in (("held-out train rows", held), ("test rows", test)):
        lines += ["", f"Last accuracy (percent) on {title}:", "", *markdown(cells)]
    return lines


def markdown(cells: Cells) -> list[str]:
    """One table, best first."""
    rows = {name for column in cells.values() for name in column}
    everywhere = {name: mean(c[name][0] for c in cells.values() if name in c) for name in rows}
    lines = [f"| | {' | '.join(cells)} | mean |", "|---" * (len(cells) + 2) + "|"]
    for name in sorted(rows, key=lambda name: -everywhere[name]):
        values = (f"{c[name][0]:.2f} ± {c[name][1]:.2f}" if name in c else "" for c in cells.values())
        lines.append(f"| {name} | {' | '.join(values)} | {everywhere[name]:.2f} |")
    return lines


if __name__ == "__main__":
    main()
