"""Images that lie many to a file, read in place: datasets of Hugging Face (Arrow, Parquet) and WebDataset's tar shards."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from tosca_cache.datasets import arrow
from tosca_cache.datasets.archives import archive_errors, tar_members
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.decoding import IMAGE_SUFFIXES, Decoding
from tosca_cache.datasets.rows import FileOpener, Row, build_dataset, is_visible
from tosca_cache.errors import DatasetError
from tosca_cache.text import one_line

_SUFFIXES = (".tar", ".arrow", ".parquet")
MOST_LABEL = 1 << 20  # bytes of a file that says a label
Places = list[tuple[int, int]]  # first byte and number of bytes of each image
_File = tuple[int, int, bytes | None]  # and what it says, if it is a label
_SPLIT = re.compile(r"(train|test|valid|val|dev)(ing|ation)?(?![a-z])", re.IGNORECASE)


def packed_suffix(path: Path) -> str | None:
    """The suffix of the tables or shards that a path is or holds (also in data/, train/, ...); None if there are none.

    A folder with images of its own in class folders is none of tables, whatever lies beside them.
    """
    if path.is_file():
        return path.suffix if path.suffix in _SUFFIXES else None
    places = (path, *(path / below for below in ("data", "train", "test")))
    found = next((suffix for suffix in _SUFFIXES for place in places if any(place.glob(f"*{suffix}"))), None)
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
    root = path.parent if path.is_file() else path
    read_labels: Any = _tar_labels if suffix == ".tar" else arrow.read_labels
    read_image: Any = _tar_image if suffix == ".tar" else arrow.read_image
    splits = _by_split([path.name] if path.is_file() else _files(path, suffix))
    left_out = {"files of another split": splits.pop("other")} if "other" in splits else {}
    rows, places, orders = [], {}, []
    arrow.forget()
    for split, files in splits.items():
        said = split if "test" in splits else None
        for file in files:
            labels, order, places[root / file] = read_labels(root / file, decoding.suffixes)
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
    opener = FileOpener(root, decoding, partial(read_image, places))
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


def _tar_labels(file: Path, suffixes: frozenset[str]) -> tuple[list[str], None, Places]:
    """(labels, None, places) of the samples of a shard: what stands in KEY.cls, and where the image is.

    Raises `DatasetError`: the shard is damaged, compressed or holds links; a sample has not one image, or no label.
    """
    labels, places = [], []
    with archive_errors(file, "a shard cannot be read"), file.open("rb") as opened:
        for number, (_, members) in enumerate(groupby(_members(opened), itemgetter(0))):
            files = {suffix: found for _, suffix, found in members}
            images = [suffix for suffix in files if f".{suffix.rpartition('.')[2]}" in suffixes]
            try:
                if len(images) != 1:
                    raise ValueError(f"it has {len(images) or 'no'} images among {sorted(map(one_line, files))}")
                if not (label := (files.get("cls", (0, 0, None))[2] or b"").decode().strip()):
                    raise ValueError("it has no label in KEY.cls, or one without end")
            except ValueError as error:
                raise DatasetError(
                    f"a sample of a shard cannot be used: {error}",
                    where=f"{file}, row {number}",
                    remedy="docs/packed.md says what a shard holds",
                ) from error
            labels.append(label)
            places.append(files[images[0]][:2])
    return labels, None, places


def _members(opened: IO[bytes]) -> Iterator[tuple[tuple[str, str], str, _File]]:
    """(key, suffix, where it is) of the files of a tar; keys as WebDataset's."""
    for tar, member in tar_members(opened, "r:"):
        folder, _, name = member.name.rpartition("/")
        key, _, suffix = name.partition(".")
        if key and member.isreg():
            says = suffix.lower() == "cls" and member.size <= MOST_LABEL
            content = tar.extractfile(member).read() if says else None  # type: ignore[union-attr]
            yield (folder, key), suffix.lower(), (member.offset_data, member.size, content)


def _tar_image(places: Mapping[Path, Places], file: Path, row: int) -> bytes:
    """The bytes of an image."""
    start, size = places[file][row]
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)
