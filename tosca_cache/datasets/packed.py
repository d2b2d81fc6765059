"""Images that lie many to a file, read in place: datasets of Hugging Face (Arrow, Parquet) and WebDataset's tar shards."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tosca_cache.datasets import arrow, shards
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.decoding import IMAGE_SUFFIXES, Decoding
from tosca_cache.datasets.names import is_visible
from tosca_cache.datasets.rows import FileOpener, Row, build_dataset
from tosca_cache.errors import DatasetError

_FORMATS: dict[str, Any] = {".tar": shards, ".arrow": arrow, ".parquet": arrow}
_SPLIT = re.compile(r"(train|test|valid|val|dev)(ing|ation)?(?![a-z])", re.IGNORECASE)


def packed_suffix(path: Path) -> str | None:
    """The suffix of the tables or shards that a path is or holds (also in data/, train/, ...); None if there are none.

    A folder with images of its own in class folders is none of tables, whatever lies beside them.
    """
    if path.is_file():
        return path.suffix if path.suffix in _FORMATS else None
    places = (path, *(path / below for below in ("data", "train", "test")))
    found = next((suffix for suffix in _FORMATS for place in places if any(place.glob(f"*{suffix}"))), None)
    images = chain(path.glob("*/*"), path.glob("*/*/*")) if found else ()
    return None if any(file.suffix.lower() in IMAGE_SUFFIXES for file in images) else found


def load_packed(path: Path, suffix: str, *, name: str, decoding: Decoding, **how: Any) -> ImageDataset:
    """The dataset in files of this suffix; their splits are what the files or their folders are called after.

    Rows are called FILE/NUMBER, so that no name within a file is used as a path. Classes are in the order of a ClassLabel;
    numbers in theirs; else by name.

    how: the fraction and the seed of `build_dataset`.

    Raises `UsageError` without pyarrow, or if the fraction does not fit; `DatasetError`: a file is damaged, or a row has no
    label.
    """
    root, form = (path.parent if path.is_file() else path), _FORMATS[suffix]
    splits = _by_split([path.name] if path.is_file() else _files(path, suffix))
    left_out = {"files of another split": splits.pop("other")} if "other" in splits else {}
    rows, places, orders = [], {}, []
    arrow.forget()
    for split, files in splits.items():
        said = split if "test" in splits else None
        for file in files:
            labels, order, places[root / file] = form.read_labels(root / file, decoding.suffixes)
            orders.append(order)
            if order != orders[0]:
                raise DatasetError("its classes are not those of the others", where=root / file, remedy="remove it")
            rows += [
                Row(text, f"{file}/{number:08d}", name, said, f"{root / file}, row {number}")
                for number, text in enumerate(labels)
            ]
    order = orders[0] if orders else None
    if order is None and all(row.label.isdecimal() for row in rows):
        order = sorted({row.label for row in rows}, key=int)
    opener = FileOpener(root, decoding, partial(form.read_image, places))
    dataset = build_dataset(name, opener, rows, order=order, left_out=left_out, **how)
    return replace(dataset, listed_in=str(path)) if path.is_file() else dataset


def _files(root: Path, suffix: str) -> list[str]:
    """Visible files of a suffix below a folder, but those that `datasets` leaves beside its tables."""
    found = (path.relative_to(root) for path in root.rglob(f"*{suffix}") if path.is_file())
    kept = (p for p in found if all(map(is_visible, p.parts)) and not p.name.startswith(("cache-", "tmp")))
    return sorted(path.as_posix() for path in kept)


def _by_split(files: list[str]) -> dict[str, list[str]]:
    """Files by the split that their folder or name says, which is train if neither does; validation stands for test."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        words = [match[1].lower() for part in Path(file).parts if (match := _SPLIT.match(part))]
        found[words[0] if words and words[0] in ("train", "test") else "other" if words else "train"].append(file)
    if "other" in found and "test" not in found:
        found["test"] = found.pop("other")
    return dict(found)
