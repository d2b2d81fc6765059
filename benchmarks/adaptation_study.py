"""Does adaptation on cached features matter: trained modules against closed forms on the same streams.

Measures: last accuracy (percent) of LuCA modules and their relatives (`adaptation_arms.py`) on streams that closed forms
may find hard: shifted domains, few shots, many classes in few rows, features of a backbone of random weights, a backbone
adapted to the first task. Against: the learners `pool`, `lda` and class means on the same stream, paired over five seeds.

    python benchmarks/adaptation_study.py sweep STORES                   # condition 5: random search, each store's ledger
    python benchmarks/adaptation_study.py run STORES [--only CONDITION,...] [--small]
    python benchmarks/adaptation_study.py weights FILE                   # vit_nano with random weights, to extract with
    python benchmarks/adaptation_study.py tables                         # all tables, as Markdown

STORES is a folder of stores; STORES/adapted has those of adapted backbones. `run` scores every arm on rows to choose by (a
fifth of each class's train rows, of the first seed) and on the test rows (all seeds); what is finished is in
results/adaptation_study/STREAM.json and is not run again. `tables` reads these files and nothing else.

Choice: an arm with variants (settings; how much its scores count beside the pool's) is reported with the variant of highest
accuracy on held-out train rows. Streams without two rows a class are reported with the choice of the stream of two shots.
`--small`: one seed, two epochs of TOSCA.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import adaptation_arms as arms
import numpy as np
import torch
from adaptation_tables import CONDITIONS, REFERENCES, SEEDS, read, tables
from common import RESULTS
from safetensors.torch import save_file

import tosca_cache as tosca
from tosca_cache.closed_form.pool import OpinionPool
from tosca_cache.config import Settings, resolve
from tosca_cache.devices import describe_machine
from tosca_cache.extract.vit_nano import create_vit_nano
from tosca_cache.files import write_json
from tosca_cache.learners.stacked_tosca import PretrainedTosca, Source, learn_stacked
from tosca_cache.routing.combine import within_tasks
from tosca_cache.seeds import numpy_generator
from tosca_cache.store import Store, open_store
from tosca_cache.sweep.scenario import Data, hold_out, read_data
from tosca_cache.tasks import Arrays, TaskStream, class_order, few_shot
from tosca_cache.train.engines import choose_engine
from tosca_cache.train.stack import Member

FOLDER = RESULTS / "adaptation_study"
TASKS = 5
DOMAINS = ("as they are", "rotated", "scaled", "bent")  # what is done to the features of a domain
WEIGHTS = (0.25, 1.0)
FEW_ROWS = 3
SPACE = {
    "lr": "log:0.003:0.3",
    "l1": "log:1e-6:1e-2",
    "epochs": [5, 10, 20],
    "flow": ["tosca", "tosca_r", "adapter", "calibrator"],
    "mlp_ratio": [4, 16],
    "router": ["sample", "lda", "pool"],
}
USUAL_SIDE = 224  # of images under these
SHORT = {"tf_efficientnet_lite0": "-lite0", "vit_small_patch14_dinov2": "-vit-s"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("sweep", "run"):
        one = verbs.add_parser(verb)
        one.add_argument("stores", type=Path)
        one.add_argument("--out", type=Path, default=FOLDER)
        one.add_argument("--match", default="", help="only stores whose name has this")
    verbs.choices["sweep"].add_argument("--trials", type=int, default=200)
    verbs.choices["run"].add_argument("--only", default=",".join(CONDITIONS))
    verbs.choices["run"].add_argument("--small", action="store_true")
    verbs.add_parser("weights").add_argument("file", type=Path)
    verbs.add_parser("tables")
    asked = parser.parse_args()
    if asked.verb == "weights":
        write_random_weights(asked.file)
        return
    if asked.verb == "tables":
        print("\n".join(tables(read(FOLDER))))
        return
    found = [path for path in sorted(asked.stores.glob("*--*")) if path.is_dir() and asked.match in path.name]
    for path in found if asked.verb == "sweep" else ():
        search(path, asked.trials, asked.out)
    for condition in asked.only.split(",") if asked.verb == "run" else ():
        for path in found:
            run(condition, path, asked.out, asked.small)


def write_random_weights(file: Path) -> None:
    """`vit_nano` as timm initialises it, as safetensors."""
    torch.manual_seed(SEEDS[0])
    save_file({name: t.contiguous() for name, t in create_vit_nano(pretrained=False).state_dict().items()}, file)


def name_of(store: Store) -> str:
    """A store's short name: its dataset, and its backbone where that is not the usual one, in pixels if not 224."""
    dataset, side = Path(store.spec.dataset["name"]).name, store.spec.transform["image_size"]
    if is_random(store):
        return f"{dataset}-random"
    backbone = SHORT.get(store.spec.backbone["name"], "")
    return f"{dataset}{backbone}-{side}px" if backbone and side != USUAL_SIDE else dataset + backbone


def is_random(store: Store) -> bool:
    """Whether its backbone is `vit_nano` with weights that are not the package's: here random ones."""
    backbone = store.spec.backbone
    return bool(backbone["name"] == "vit_nano" and backbone["tag"] == "local")


def even_sizes(classes: int, tasks: int = TASKS) -> list[int]:
    """Classes of each of the tasks, as even as they can be."""
    return [classes // tasks + (t < classes % tasks) for t in range(tasks)]


def search(path: Path, trials: int, out: Path) -> None:
    """Condition 5: random settings scored on held-out train rows of the first seed; LEDGER.best.toml has the best."""
    store, ledger = open_store(path), path.parent / f"{path.name}.sqlite"
    out.mkdir(parents=True, exist_ok=True)
    how = {"sampler": "random", "trials": trials}
    sizes = even_sizes(len(store.class_names))
    found = tosca.sweep(store, SPACE, ledger=ledger, search=how, task_sizes=sizes, report_seeds=SEEDS)
    tried = {"settings": found.settings, "cells": found.cells, "lost": found.lost, "held_out": found.top[0].mean}
    chosen = resolve(config=ledger.with_suffix(".best.toml")).config
    setting = {key: getattr(chosen, key) for key in SPACE}
    write_json(out / f"sweep--{name_of(store)}.json", {"store": name_of(store)} | tried | {"setting": setting})


def rows_for(condition: str, store: Store, seed: int) -> Data:
    """Both splits of a store as a condition has them; which rows are kept and how domains are made is drawn by name."""
    data = read_data(store, "domains" if len(store.domain_names) > 1 and condition == "domains" else "classes")
    classes = np.arange(len(data.class_names))
    if condition == "domains" and len(store.domain_names) < 2:
        shifted = {split: moved(getattr(data, split), split, store.path.name) for split in ("train", "test")}
        return replace(data, domain_names=DOMAINS, **shifted)
    if condition.startswith("shots-") or condition == "few-rows":
        first = even_sizes(len(classes))[0] if condition != "few-rows" else 0
        later = class_order(len(classes), seed)[first:]
        shots = FEW_ROWS if condition == "few-rows" else int(condition.removeprefix("shots-"))
        kept = few_shot(data.train.labels, later, data.class_names, shots=shots, seed=seed)
        return replace(data, train=data.train.part(kept))
    return data


def moved(split: Arrays, name: str, store: str) -> Arrays:
    """Rows dealt to domains within each class, and the features of each domain moved as `DOMAINS` says.

    rotated: every feature has mixed with the others by an orthogonal matrix that is near the identity (a Cayley transform);
    scaled: a gain between 1/2 and 2 and a shift for every feature; bent: sign(z) |z|^2 of standardised features, to scale.
    """
    x = np.asarray(split.features, dtype=np.float64)[:, 0]
    dim, domains = x.shape[1], np.empty(len(x), dtype=np.int64)
    for c in np.unique(split.labels):
        rows = numpy_generator(1993, "domains", name, int(c)).permutation(np.flatnonzero(split.labels == c))
        domains[rows] = np.arange(len(rows)) % len(DOMAINS)
    draw = numpy_generator(1993, "shifts", store)
    skew = draw.normal(size=(dim, dim)) * 0.5 / np.sqrt(dim)
    rotation = np.linalg.solve(np.eye(dim) + (skew - skew.T) / 2, np.eye(dim) - (skew - skew.T) / 2)
    scale, gain = x.std(), 2 ** draw.uniform(-1, 1, dim)
    shift = draw.normal(size=dim) * scale / 2
    z = x / scale
    forms = [x, x @ rotation, x * gain + shift, np.sign(z) * z**2 * scale]
    features = np.choose(domains[:, None], forms).astype(np.float32)[:, None]
    return Arrays(features, split.labels, domains=domains)


def stream_for(condition: str, store: Store, seed: int, rows: str, first: int | None = None) -> TaskStream:
    """The tasks of a condition; their test rows are held-out train rows where `rows` is `val`. first: classes of task 1."""
    data, domains = rows_for(condition, store, seed), condition == "domains"
    if rows == "val":
        data = hold_out(data, 0.2, seed, by_domain=domains)
    asked: dict[str, Any] = {"incremental": "domains", "domain_names": data.domain_names} if domains else {}
    if not domains:
        classes = len(data.class_names)
        later = [] if first is None else [first, *even_sizes(classes - first, TASKS - 1)]
        asked["task_sizes"] = later or even_sizes(classes)
    return TaskStream(data.train, data.test, class_names=data.class_names, seed=seed, **asked)


def run(condition: str, path: Path, out: Path, small: bool) -> None:
    """All cells of one condition on one store that are not finished, if the condition is one of that store."""
    store = open_store(path)
    several = len(store.domain_names) > 1
    if (condition == "random-weights") != is_random(store) or (several and condition != "domains"):
        return
    seeds = SEEDS[:1] if small else SEEDS
    with_adapted = condition in ("adapted", "on-adapted")
    adapted = adapted_stores(path.parent / "adapted", store) if with_adapted else []
    if with_adapted:
        seeds = tuple(seed for seed in seeds if adapted_to(store, seed, adapted) is not None)
    if not seeds:
        return
    file = out / f"{condition}--{name_of(store)}.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"cells": {}}
    known |= {"condition": condition, "store": name_of(store), "machine": describe_machine(torch.device("cpu"))}
    settings = settings_for(name_of(store), out)
    if "settings" in known:  # of cells that are finished: all cells of a file have the same arms
        settings = {name: Settings(**one) for name, one in known["settings"].items()}
    if small:
        settings = {name: replace(one, epochs=2) for name, one in settings.items()}
    known["settings"] = {name: vars(one) for name, one in settings.items()}
    chosen_by = [] if condition in ("shots-1", "adapted") else ["val"]
    for cell, rows, seed in [*((row, row, seeds[0]) for row in chosen_by), *((str(s), "test", s) for s in seeds)]:
        if cell in known["cells"]:
            continue
        start = perf_counter()
        asked = (store, None) if not with_adapted else adapted_to(store, seed, adapted)
        assert asked is not None
        if condition == "adapted":
            found = of_adapted(store, seed, *asked)
        else:
            found = measured(stream_for(condition, asked[0], seed, rows, asked[1]), settings)
        known["cells"][cell] = found | {"seconds": perf_counter() - start}
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
        print(f"{file.stem} {cell}: " + ", ".join(f"{k} {v:.2f}" for k, v in found.items()), flush=True)


def settings_for(name: str, out: Path) -> dict[str, Settings]:
    """The published setting, and the one of the search on the same dataset's store if there has been one."""
    found, dataset = {"published": Settings()}, name.partition("-")[0]
    for file in (out / f"sweep--{name}.json", *sorted(out.glob(f"sweep--{dataset}*.json"))):
        if file.exists():
            setting = json.loads(file.read_text(encoding="utf-8"))["setting"]
            found["tuned"] = Settings(**{key: value for key, value in setting.items() if key != "router"})
            break
    return found


def measured(stream: TaskStream, settings: dict[str, Settings]) -> dict[str, float]:
    """Last accuracy of every arm in every variant, named ARM or ARM|VARIANT."""
    pool, x = OpinionPool.fitted(stream), test_rows(stream)
    alone = torch.log_softmax(pool.log_probs(x, len(stream)), 1)
    found = {"pool": alone, **{name: pool.classifiers[key].scores(x, len(stream)) for key, name in REFERENCES.items()}}
    for name, setting in settings.items():
        found |= of_modules(stream, name, setting, alone, x.double())
    residuals = arms.residual_scorers(stream, arms.TRAINING)
    replayed = arms.replayed_scorer(stream, arms.TRAINING)(x.double())
    found["replayed module"] = replayed
    for w in WEIGHTS:
        found[f"residual modules x pool|{w:g}"] = arms.with_residuals(alone, residuals, stream, x.double(), w)
        found[f"replayed module x pool|{w:g}"] = alone + w * replayed
    return {name: arms.accuracy(scores, stream) for name, scores in found.items()}


def test_rows(stream: TaskStream) -> torch.Tensor:
    """Clean test features of all tasks, [n, d], in order."""
    return torch.cat([torch.from_numpy(stream.test(number).features[:, 0]) for number in range(len(stream))])


def of_modules(
    stream: TaskStream, name: str, settings: Settings, pool: torch.Tensor, x: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Scores of TOSCA under least entropy and times the pool, and of its first module frozen."""
    seed, device = stream.protocol.seed, torch.device("cpu")
    engine = choose_engine("native", device, steps=0)
    (record,) = learn_stacked([Source(stream, seed)], [Member(settings, 0)], device=device, engine=engine)
    learner = PretrainedTosca(record, settings, seed=seed, engine=engine)
    for task in stream:
        learner.observe(task)
    tests = learner.test_set()
    for number in range(len(stream)):
        tests.add(stream.test(number).features)
    outputs = tests.outputs()
    found = {f"tosca, least entropy|{name}": learner.router.scores(outputs).double()}
    found |= {f"tosca x pool|{name}, {w:g}": pool + w * within_tasks(outputs) for w in WEIGHTS}
    first = arms.first_session(stream, record.modules[0], settings.flow, x)
    found[f"first session, class means|{name}"] = first["means"]
    found[f"first session, lda|{name}"] = first["lda"]
    return found | {f"first session, lda x pool|{name}, {w:g}": pool + w * first["lda"] for w in WEIGHTS}


def adapted_stores(folder: Path, store: Store) -> list[Store]:
    """The stores in a folder whose backbone was adapted from that of another store."""
    found = [open_store(path) for path in sorted(folder.glob("*--*")) if path.is_dir()]
    digest = store.spec.backbone["weights_digest"]
    return [one for one in found if one.spec.adapted is not None and one.spec.adapted["base_digest"] == digest]


def adapted_to(store: Store, seed: int, adapted: list[Store]) -> tuple[Store, int] | None:
    """The store whose backbone was adapted to the classes that a seed has first, and how many these are."""
    for one in adapted:
        wanted = set(one.spec.first_task or ())
        if set(stream_for("adapted", store, seed, "test", len(wanted)).names(0)) == wanted:
            return one, len(wanted)
    return None


def of_adapted(store: Store, seed: int, adapted: Store, first: int) -> dict[str, float]:
    """Closed forms on the frozen backbone's features, and on those of the backbone adapted to this seed's first task."""
    found = {}
    for name, each in (("", store), ("adapted backbone, ", adapted)):
        stream = stream_for("adapted", each, seed, "test", first)
        pool, x = OpinionPool.fitted(stream), test_rows(stream)
        found[f"{name}pool"] = arms.accuracy(pool.log_probs(x, len(stream)), stream)
        for key, reference in REFERENCES.items():
            found[f"{name}{reference}"] = arms.accuracy(pool.classifiers[key].scores(x, len(stream)), stream)
    return found


if __name__ == "__main__":
    main()
