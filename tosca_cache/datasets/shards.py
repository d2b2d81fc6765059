"""WebDataset: tar shards of samples (KEY.jpg and KEY.cls or KEY.json beside each other), read in place."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tosca_cache.datasets.archives import Bounded, archive_errors, tar_members
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.decoding import Decoding
from tosca_cache.datasets.packed import NO_LABEL, PackedOpener, PackedRow, by_split, packed_dataset, shard_files
from tosca_cache.errors import DatasetError
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.text import one_line

SUFFIX = ".tar"
LABEL = "cls"  # WebDataset's own suffix for a class
NAMES = "classnames.txt"  # beside the shards: a line a class, for labels that are numbers
MOST_LABEL = 1 << 20  # bytes of a file that says a label


def is_shards(path: Path) -> bool:
    """Whether a path is a tar shard, or a folder of some (also in train/ and test/)."""
    if path.is_file():
        return path.suffix == SUFFIX
    places = (path, *(path / split for split in ("train", "test", "val", "validation")))
    return any(next(place.glob(f"*{SUFFIX}"), None) is not None for place in places)


def load_shards(
    path: Path,
    *,
    name: str | None = None,
    test_fraction: float | None = None,
    seed: int = 1993,
    decoding: Decoding | None = None,
    label: str | None = None,
) -> ImageDataset:
    """The dataset in tar shards; their splits are what their files or folders are called after.

    Only headers and labels are read. A sample is files of one key: an image, and its label in KEY.cls, or in the field
    `label` (or the one that is named) of KEY.json. Labels that are numbers are named by classnames.txt, if it is there.

    Arguments:
        label: the suffix of the files with labels, or the field of KEY.json.
        name, test_fraction, seed, decoding: as in `load_folder`.

    Raises:
        DatasetError: a shard is damaged, cut off, compressed or holds links; a sample has no image or no label.
    """
    root, how = (path.parent if path.is_file() else path), decoding or Decoding()
    shards = [path.name] if path.is_file() else shard_files(path, SUFFIX)
    splits = by_split(shards)
    names = _names(root)
    rows: dict[str, list[PackedRow]] = {"train": [], "test": []}
    for split, members in splits.items():
        if split in (None, *rows):
            rows[split or "train"] += [row for shard in members for row in _rows(root, shard, how, label, names)]
    opener = PackedOpener(root, rows, how, _read)
    left_out = {"shards of another split": splits["validation"]} if "validation" in splits else {}
    dataset = packed_dataset(opener, name or path.resolve().name, _order(rows, names), test_fraction, seed, left_out)
    return replace(dataset, listed_in=str(path)) if path.is_file() else dataset


def _names(root: Path) -> list[str] | None:
    file = root / NAMES
    if not file.is_file():
        return None
    try:
        return [line.strip() for line in read_limited(file, Limit.CLASS_ORDER).decode().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"the names of the classes cannot be read: {error}", where=file, remedy="a line a class, in UTF-8"
        ) from error


def _order(rows: dict[str, list[PackedRow]], names: list[str] | None) -> list[str] | None:
    """Names as they are listed; numbers by their value; None for anything else, which is sorted."""
    labels = {row.label for members in rows.values() for row in members}
    if names is not None and labels <= set(names):
        return names
    return sorted(labels, key=int) if labels and all(label.isdecimal() for label in labels) else None


def _rows(
    root: Path, shard: str, decoding: Decoding, label: str | None, names: list[str] | None
) -> Iterator[PackedRow]:
    file = root / shard
    with archive_errors(file, "a shard cannot be read"), file.open("rb") as opened:
        sample: dict[str, tarfile.TarInfo] = {}
        said: dict[str, bytes] = {}
        key, number = None, 0
        for tar, member in tar_members(Bounded(opened, sys.maxsize)):
            if not member.isreg() or Path(member.name).name.startswith("."):
                continue
            this, suffix = _key(member.name)
            if this != key and sample:
                yield _row(file, shard, number, sample, said, decoding, label, names)
                number, sample, said = number + 1, {}, {}
            key, sample[suffix] = this, member
            if suffix in (label, LABEL, "json"):
                said[suffix] = _label_file(tar, member, file, number)
        if sample:
            yield _row(file, shard, number, sample, said, decoding, label, names)


def _key(name: str) -> tuple[str, str]:
    """What stands before the first dot of the file's name, with its folders; and the rest. The rule is WebDataset's."""
    folder, _, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}/{stem}", suffix.lower()


def _label_file(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path, number: int) -> bytes:
    if member.size > MOST_LABEL:
        raise _wrong(file, number, f"its label has {member.size:,} bytes")
    content = tar.extractfile(member)
    assert content is not None
    return content.read()


def _row(
    file: Path,
    shard: str,
    number: int,
    sample: dict[str, tarfile.TarInfo],
    said: dict[str, bytes],
    decoding: Decoding,
    label: str | None,
    names: list[str] | None,
) -> PackedRow:
    images = [s for s in sample if f".{s.rpartition('.')[2]}" in decoding.suffixes]
    if len(images) != 1:
        raise _wrong(file, number, f"it has {len(images) or 'no'} images among {sorted(map(one_line, sample))}")
    member = sample[images[0]]
    found = _label(file, number, said, label)
    if names is not None and found.isdecimal():
        if int(found) >= len(names):
            raise _wrong(file, number, f"its label is {found}, but {NAMES} has {len(names)} classes")
        found = names[int(found)]
    return PackedRow(shard, number, found, member.offset_data, member.size)


def _label(file: Path, number: int, said: dict[str, bytes], label: str | None) -> str:
    try:
        plain = said.get(label or LABEL)
        if plain is not None and label != "json":
            found: object = plain.decode().strip()
        else:
            fields = strict_json(said["json"]) if "json" in said else {}
            found = fields.get(label or "label") if isinstance(fields, dict) else None
    except ValueError as error:
        raise _wrong(file, number, f"its label cannot be read: {error}") from error
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise _wrong(file, number, f"it has no label; {NO_LABEL}")
    return str(found)


def _read(file: Path, row: PackedRow, column: str) -> bytes:
    with file.open("rb") as opened:
        opened.seek(row.start)
        return opened.read(row.size)


def _wrong(file: Path, number: int, problem: str) -> DatasetError:
    return DatasetError(
        f"a sample of a shard cannot be used: {problem}",
        where=f"{file}, row {number}",
        remedy="docs/packed.md says what a shard holds",
    )
