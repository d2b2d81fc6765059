"""A small store whose every row follows from its place."""

import time
from pathlib import Path

import numpy as np

from tosca_cache.store import Shard, Store, StoreSpec, StoreWriter

ROWS = {"train": 70, "test": 33}
VIEWS = {"train": 3, "test": 1}
CLASSES = ("ant", "bee", "cat", "dog")
DOMAINS = ("photo", "sketch")
DIM = 24
SHARD_ROWS = 16
BAD = [("train", 20), ("test", 0)]  # rows that cannot be read, where a test wants some
PATIENCE = 300.0  # seconds; what takes longer hangs


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


ARRAYS = {split: toy_arrays(split) for split in ROWS}


def open_writer(path, spec=None, *, rows=ROWS, views=VIEWS, numerics=None, shard_rows=SHARD_ROWS, **more):
    """A writer of the toy store, or of a part of it."""
    return StoreWriter.open(
        Path(path),
        spec or toy_spec(rows, views),
        class_names=CLASSES,
        domain_names=DOMAINS,
        numerics=numerics or {"batch_size": 4, "device": "cpu"},
        shard_rows=shard_rows,
        **more,
    )


def publish(writer: StoreWriter, shard: Shard, arrays, bad=()) -> None:
    """Publishes one shard; `bad` are (split, row) that could not be read."""
    part = {name: values[shard.start : shard.stop] for name, values in arrays[shard.split].items()}
    skipped = {
        row: f"cannot decode {row}" for split, row in bad if split == shard.split and shard.start <= row < shard.stop
    }
    writer.publish(shard, part, skipped=skipped)


def build(path, spec=None, *, rows=ROWS, views=VIEWS, dim=DIM, shard_rows=SHARD_ROWS, bad=(), order=1) -> Store:
    """Starts or goes on with the toy store and finishes it."""
    arrays = {split: toy_arrays(split, rows, views, dim) for split in rows}
    spec = spec or toy_spec(rows, views, dim)
    with open_writer(path, spec, rows=rows, views=views, shard_rows=shard_rows) as writer:
        for shard in writer.pending()[::order]:
            publish(writer, shard, arrays, bad)
        return writer.finish({"seconds": time.time()})


def build_part(path, part, *, bad=(), **how) -> None:
    """Makes what is left of one part of the toy store."""
    with open_writer(path, part=part, **how) as writer:
        for shard in writer.pending():
            publish(writer, shard, ARRAYS, bad)


def read_everything(store: Store) -> None:
    """Reads every byte of a store through its public methods."""
    for split in ("train", "test"):
        store.features(split)
        store.labels(split)
        store.domains(split)
        store.view_parameters(split)
        store.paths(split)


def wait_until(condition):
    """Looks until it is so; a condition that never comes true is an error, however slow the machine."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what is waited for does not happen"
        time.sleep(0.01)
