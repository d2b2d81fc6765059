"""A small store whose every row follows from its place, the ways in which it comes to be, and processes that make it."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from disk_waits import without_waiting
from steps import death, watched

from tosca_cache.store import Part, Store, StoreSpec, StoreWriter, partial_path, read_unfinished

ROWS = {"train": 70, "test": 33}
VIEWS = {"train": 3, "test": 1}
CLASSES = ("ant", "bee", "cat", "dog")
DOMAINS = ("photo", "sketch")
DIM = 24
NUMERICS = {"batch_size": 4, "device": "cpu"}
BAD = [("train", 20), ("test", 0)]  # rows that cannot be read, where a test wants some
SMALL = {"rows": {"train": 5, "test": 2}, "shard_rows": 3}
SCENES = ("plain", "skipped", "parts", "restart")


def toy_spec(rows=ROWS, views=VIEWS, dim=DIM, dtype="float16", **changes) -> StoreSpec:
    """A complete fingerprint; `changes` replace whole groups or values."""
    groups = {
        "dataset": {"name": "toy", "listing_digest": "0" * 64, "classes": len(CLASSES), "splits": dict(rows)},
        "backbone": {"name": "nano", "tag": "test", "weights_digest": "1" * 64, "dim": dim},
        "transform": {"image_size": 32, "mean": [0.5, 0.5, 0.5]},
        "views": {"count": views["train"] - 1, "seed": 1993, "test_count": views["test"] - 1},
        "precision": "fp32",
        "dtype": dtype,
    }
    return StoreSpec(**(groups | changes))


def toy_arrays(split, rows=ROWS, views=VIEWS, dim=DIM) -> dict:
    """What the store of a split must hold, every row."""
    count = rows[split]
    generator = np.random.default_rng([count, views[split], dim])
    return {
        "features": generator.normal(size=(count, views[split], dim)).astype(np.float32),
        "labels": np.arange(count) % len(CLASSES),
        "domains": np.arange(count) % len(DOMAINS),
        "views": generator.integers(0, 1 << 62, (count, views[split], 6)),
        "paths": tuple(f"{split}/{CLASSES[row % len(CLASSES)]}/bild-ä{row}.jpg" for row in range(count)),
    }


def open_writer(path, spec=None, *, numerics=None, shard_rows=16, part=None, restart=False, **sizes):
    """A writer of the toy store, or of a part of it; sizes: of `toy_spec`."""
    how = {"numerics": numerics or NUMERICS, "shard_rows": shard_rows, "part": part, "restart": restart}
    spec = spec or toy_spec(**sizes)
    return StoreWriter.open(Path(path), spec, class_names=CLASSES, domain_names=DOMAINS, **how)


def shard_of(spec, shard) -> dict:
    """What a shard must hold."""
    sizes = {
        "rows": spec.dataset["splits"],
        "views": {s: spec.view_count(s) for s in ROWS},
        "dim": spec.backbone["dim"],
    }
    return {name: values[shard.start : shard.stop] for name, values in toy_arrays(shard.split, **sizes).items()}


def publish(writer: StoreWriter, shard, bad=()) -> None:
    """Publishes one shard; `bad` are (split, row) that could not be read."""
    gone = [row for split, row in bad if split == shard.split and shard.start <= row < shard.stop]
    writer.publish(shard, shard_of(writer.plan.spec, shard), skipped={row: f"cannot decode {row}" for row in gone})


def build(path, spec=None, *, bad=(), part=None, order=1, promise=lambda done: None, **how) -> Store | None:
    """Makes what is left of the toy store, or of a part of it; the store, if that is all.

    promise: is given the rows that are done, then "finished".
    """
    with open_writer(path, spec, part=part, **how) as writer:
        promise(writer.done_rows)
        for shard in writer.pending()[::order]:
            publish(writer, shard, bad)
            promise(writer.done_rows)
        if part is not None:
            return None
        store = writer.finish({"machine": "toy"})
        promise("finished")
        return store


def make(scene, path, promise=lambda done: None) -> None:
    """Makes what is left of a small store: plain, without a row that cannot be read, in parts, or after another one.

    Can be called again until it gets through.
    """
    path, bad = Path(path), [] if scene in ("plain", "restart") else [("train", 1)]
    if path.exists():
        return
    if scene == "restart":
        begun = read_unfinished(partial_path(path))
        if begun is None or begun.plan.numerics != NUMERICS:
            with open_writer(path, numerics={"batch_size": 9}, **SMALL) as writer:
                for shard in writer.pending()[:1]:
                    publish(writer, shard)
            open_writer(path, restart=True, **SMALL).close()
    for index in (1, 2) if scene == "parts" else ():
        build(path, bad=bad, part=Part(2, index), **SMALL)
    build(path, bad=bad, promise=promise, **SMALL)


def read_everything(store: Store) -> None:
    """Reads every byte of a store through its public methods."""
    for split in ("train", "test"):
        store.features(split)
        store.labels(split)
        store.domains(split)
        store.view_parameters(split)
        store.paths(split)


# For `commands.Fork`; a process does not end what it patches, and importing pytest would take it as long as all else.
FOR_GOOD = SimpleNamespace(setattr=setattr)


def hastily(deed):
    """Does something without waiting for the disk: what a killed process has written stays written."""
    without_waiting(FOR_GOOD)
    deed()


def dying(root, number, deed):
    """The same, but the process kills itself before that step below `root`."""
    without_waiting(FOR_GOOD)
    with watched(root, death(number)):
        deed()


def publish_one_and_stay(path):
    """Publishes the first shard of the toy store and keeps the store, with a child whose number it prints."""
    with open_writer(path) as writer:
        publish(writer, writer.pending()[0])
        if child := os.fork():
            print(child, flush=True)
        while True:
            signal.pause()
