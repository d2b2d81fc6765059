"""What several layers and other poolings gain: learners on pieces of one store, the same tasks and seeds.

    tosca extract --dataset FOLDER --layers 6 --pool cls+mean --views 0 ...
    python benchmarks/layers.py STORE --increment K [--seeds ...] [--only NAME ...] [--out FILE]

The store's pieces are cls@-6 ... cls@-2 and cls+mean, from one pass; what a store of other options would have is cut out of
them. `layup` on 1, 2, 4 and 6 layers of [CLS]; `ranpac`, `lda` and `pool` on [CLS], on patch means, and on both.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS

import tosca_cache as tosca
from tosca_cache.evaluate.summary import mean_and_spread, to_json
from tosca_cache.files import write_json
from tosca_cache.splits import Arrays, load_splits
from tosca_cache.store import Store
from tosca_cache.tasks import TaskStream

MEASURES = ("average_accuracy", "last_accuracy")
SEEDS = (1993, 1994, 1995, 1996, 1997)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--increment", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", nargs="+", help="rows of the table: cls, 'cls of 6 layers', mean, cls+mean, ...")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    store = tosca.open_store(asked.store)
    out = asked.out or RESULTS / "layers" / f"{store.spec.dataset['name']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"store": store.spec.to_dict(), "increment": asked.increment, "seeds": list(asked.seeds)}
    chosen = {name: cut for name, cut in cuts(store).items() if asked.only is None or name in asked.only}
    for name, (methods, columns) in chosen.items():
        train, test = (_cut(split, columns) for split in load_splits(store))
        for method in methods:
            results = []
            for seed in asked.seeds:
                stream = TaskStream(
                    train, test, class_names=store.class_names, increment=asked.increment, init_cls=None, seed=seed
                )
                report = tosca.evaluate(tosca.train(stream, method=method, seed=seed))
                results.append({measure: report[measure] for measure in MEASURES})
            mean, spread = mean_and_spread(results)
            found[f"{method} on {name}"] = {"mean": mean, "spread": spread, "by_seed": results}
            row = " | ".join(f"{mean[m]:.2f} ± {spread[m]:.2f}" for m in MEASURES)
            print(f"| {method} | {name} | {len(columns)} | {row} |", flush=True)
            write_json(out, to_json(found))


def cuts(store: Store) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Learners and columns by the name of what they see."""
    names, widths = zip(*store.spec.pieces, strict=True)
    d, dim = widths[0], store.dim
    if names[-1] != "cls+mean" or widths != (*[d] * (len(widths) - 1), 2 * d):
        raise SystemExit("give a store of --layers K --pool cls+mean")
    stop = dim - d  # of [CLS]
    heads = ("lda", "pool", "ranpac")
    found = {"cls": (("layup", *heads), np.arange(stop - d, stop))}
    for layers in (k for k in (2, 4, len(names)) if k <= len(names)):
        found[f"cls of {layers} layers"] = (("layup",), np.arange(stop - layers * d, stop))
    found["mean"] = (heads, np.arange(stop, dim))
    found["cls+mean"] = (("layup", *heads), np.arange(stop - d, dim))
    found[f"cls of {len(names)} layers, mean"] = (("layup",), np.arange(dim))
    return found


def _cut(arrays: Arrays, columns: np.ndarray) -> Arrays:
    return replace(arrays, features=np.ascontiguousarray(arrays.features[slice(None)][..., columns]), last=0)


if __name__ == "__main__":
    main()
