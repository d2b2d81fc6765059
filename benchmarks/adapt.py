"""What first-session adaptation gains: the same learners on frozen and on adapted features, the same tasks and seeds.

    python benchmarks/adapt.py DATASET --init-cls N --increment K [--backbone NAME --weights FILE] [--seeds ...]

For every seed: `tosca adapt` on the first task's train images, `tosca extract` with the result, and each learner on the
class order of that seed, on both stores (with --with-base also on frozen and adapted features side by side). The frozen
store is one for all seeds. Everything is kept in --work and not made again; the JSON is written after each seed.
Selection of the epoch is by held-out train rows; test rows are only scored.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter
from typing import Any

from common import RESULTS

import tosca_cache as tosca
from tosca_cache.adapt import AdaptRequest, run_adapt
from tosca_cache.adapt.training import LEARNING_RATES, TrainingOptions
from tosca_cache.class_order import Protocol
from tosca_cache.devices import describe_machine, resolve_device
from tosca_cache.evaluate.summary import mean_and_spread
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.request import ExtractRequest, prepare
from tosca_cache.extract.tuning import KINDS
from tosca_cache.files import write_json
from tosca_cache.store import Store

MEASURES = ("average_accuracy", "last_accuracy")


def main() -> None:
    asked = _parser().parse_args()
    out = asked.out or RESULTS / "adapt" / f"{Path(asked.dataset).name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    frozen, seconds = _extract(asked, asked.backbone)
    found: dict[str, Any] = {
        "settings": {k: _name(v) for k, v in vars(asked).items() if k not in ("out", "work")},
        "machine": describe_machine(resolve_device(asked.device)),
        "frozen": {"backbone": frozen.spec.shown_backbone, "extract_seconds": seconds},
        "seeds": {},
    }
    for seed in asked.seeds:
        found["seeds"][str(seed)] = measure(asked, frozen, seed)
        found["summary"] = summary(found["seeds"])
        write_json(out, found)
        print(json.dumps(found["summary"], indent=1), flush=True)
    print(f"written: {out}")


def _name(value: Any) -> Any:
    """An option as it is recorded: of paths the last part alone."""
    is_path = isinstance(value, Path) or (isinstance(value, str) and "/" in value)
    return Path(value).name if is_path else value


def measure(asked: argparse.Namespace, frozen: Store, seed: int) -> dict[str, Any]:
    """One seed: the training record, seconds, and the accuracies of each learner on each store."""
    begun = perf_counter()
    made = run_adapt(_adapt_request(asked, seed))
    record = made.card.training
    found: dict[str, Any] = {
        "adapt_seconds": None if made.was_there else perf_counter() - begun,
        "kept_epoch": record["best"],
        "history": record["history"],
        "train_rows": made.card.first_task.train_rows,
        "held_out": made.card.first_task.held_out,
        "accuracy": {"frozen": _accuracies(asked, frozen, seed)},
    }
    adapted, found["extract_seconds"] = _extract(asked, str(made.path))
    found["accuracy"]["adapted"] = _accuracies(asked, adapted, seed)
    if asked.with_base:
        both, _ = _extract(asked, str(made.path), with_base=True)
        found["accuracy"]["frozen and adapted"] = _accuracies(asked, both, seed)
    return found


def summary(seeds: dict[str, Any]) -> dict[str, Any]:
    """{features: {learner: {measure: [mean, spread]}}}, and the gain of adapted over frozen, paired by seed."""
    kinds = list(next(iter(seeds.values()))["accuracy"])
    tables: dict[str, Any] = {kind: _mean([one["accuracy"][kind] for one in seeds.values()]) for kind in kinds}
    tables["gain"] = _mean(
        [
            {
                name: {m: values[m] - one["accuracy"]["frozen"][name][m] for m in MEASURES}
                for name, values in now.items()
            }
            for one in seeds.values()
            for now in [one["accuracy"]["adapted"]]
        ]
    )
    return tables


def _mean(tables: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in tables[0]:
        mean, spread = mean_and_spread([table[name] for table in tables])
        found[name] = {m: [round(mean[m], 2), None if len(tables) < 2 else round(spread[m], 2)] for m in MEASURES}
    return found


def _accuracies(asked: argparse.Namespace, store: Store, seed: int) -> dict[str, dict[str, float]]:
    stream = tosca.task_stream(store, increment=asked.increment, init_cls=asked.init_cls, seed=seed)
    found = {}
    for method in asked.methods:
        report = tosca.evaluate(tosca.train(stream, method=method, seed=seed))
        found[method] = {name: report[name] for name in MEASURES}
    return found


def _source(asked: argparse.Namespace, backbone: str | None, **more: Any) -> ExtractRequest:
    return ExtractRequest(
        dataset=asked.dataset,
        root=asked.work / "cache",
        backbone=backbone,
        weights=asked.weights,
        img_size=asked.img_size,
        device=asked.device,
        options=ExtractOptions(views=asked.views),
        **more,
    )


def _extract(asked: argparse.Namespace, backbone: str | None, *, with_base: bool = False) -> tuple[Store, float | None]:
    begun = perf_counter()
    extraction = prepare(_source(asked, backbone, with_base=with_base))
    was_there, store = extraction.path.exists(), extraction.run()
    return store, None if was_there else perf_counter() - begun


def _adapt_request(asked: argparse.Namespace, seed: int) -> AdaptRequest:
    training = TrainingOptions(
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        optimizer=asked.optimizer,
        lr=asked.lr,
        scale=asked.scale,
        bf16=asked.bf16,
    )
    protocol = Protocol(increment=asked.increment, init_cls=asked.init_cls, seed=seed)
    source = _source(asked, asked.backbone, precision="fp32")
    return AdaptRequest(source, protocol, asked.work / "adapted", asked.kind, asked.size, training)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--init-cls", type=int, required=True)
    parser.add_argument("--increment", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1993, 1994, 1995, 1996, 1997])
    parser.add_argument("--methods", nargs="+", default=["nmc", "ranpac", "pool"])
    parser.add_argument("--kind", choices=list(KINDS), default="adapter")
    parser.add_argument("--size", type=int)
    parser.add_argument("--backbone")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--img-size", type=int)
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--optimizer", choices=list(LEARNING_RATES), default="sgd")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--with-base", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=Path("build/adapt"), help="stores and adapted backbones")
    parser.add_argument("--out", type=Path)
    return parser


if __name__ == "__main__":
    main()
