"""Datasets of Hugging Face on disk: Arrow files of `save_to_disk`, or Parquet shards, read in place with pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.decoding import Decoding
from tosca_cache.datasets.packed import NO_LABEL, PackedOpener, PackedRow, by_split, packed_dataset, shard_files
from tosca_cache.errors import DatasetError, ImageError, UsageError
from tosca_cache.text import one_line

ARROW, PARQUET = ".arrow", ".parquet"
MOST_GROUP = 1 << 30  # bytes of a row group of Parquet, which is read as a whole
FILES, GROUPS = 64, 8  # that are kept open, that are kept in memory
LABELS = ("label", "labels", "class", "fine_label")  # columns that hold labels where none is named


def is_tables(path: Path) -> bool:
    """Whether a path is an Arrow or Parquet file, or a folder that holds some (also in data/, train/ and test/)."""
    if path.is_file():
        return path.suffix in (ARROW, PARQUET)
    places = (path, *(path / below for below in ("data", "train", "test", "validation")))
    return any(next(place.glob(f"*{suffix}"), None) is not None for place in places for suffix in (ARROW, PARQUET))


def load_tables(
    path: Path,
    *,
    name: str | None = None,
    test_fraction: float | None = None,
    seed: int = 1993,
    decoding: Decoding | None = None,
    label: str | None = None,
) -> ImageDataset:
    """The dataset in tables; their splits are what their files or folders are called after.

    Images are a column of bytes, or of {bytes, path} with the bytes in it: no path is followed. Classes are in the order of
    a ClassLabel, numbers in theirs, other labels in that of their names.

    Arguments:
        label: the column of labels.
        name, test_fraction, seed, decoding: as in `load_folder`.

    Raises:
        UsageError: pyarrow is not here, or there is no column of that name.
        DatasetError: a table is damaged, or a row has no label.
    """
    _arrow()
    root, how = (path.parent if path.is_file() else path), decoding or Decoding()
    suffix = path.suffix if path.is_file() else (ARROW if shard_files(path, ARROW) else PARQUET)
    splits = by_split([path.name] if path.is_file() else [s for s in shard_files(path, suffix) if not _cached(s)])
    rows: dict[str, list[PackedRow]] = {"train": [], "test": []}
    image, order = "", None
    for split, shards in splits.items():
        for shard in shards if split in (None, *rows) else ():
            with _table_errors(root / shard):
                found, of, column = _rows(root / shard, shard, label)
            if rows["train"] + rows["test"] and (column, of) != (image, order):
                raise DatasetError(
                    "its columns or classes are not those of the other tables", where=root / shard, remedy="remove it"
                )
            image, order = column, of
            rows[split or "train"] += found
    opener = PackedOpener(root, rows, how, _read_arrow if suffix == ARROW else _read_parquet, image)
    left_out = {"tables of another split": splits["validation"]} if "validation" in splits else {}
    classes = order or _numbers(rows)
    dataset = packed_dataset(opener, name or path.resolve().name, classes, test_fraction, seed, left_out)
    return replace(dataset, listed_in=str(path)) if path.is_file() else dataset


def _cached(shard: str) -> bool:
    """What `datasets` leaves beside its tables."""
    return Path(shard).name.startswith(("cache-", "tmp"))


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "reading Arrow and Parquet needs the package pyarrow",
            where="--dataset",
            remedy="pip install 'tosca-cache[exchange]'",
        ) from error
    return pyarrow


@contextmanager
def _table_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (_arrow().ArrowException, OSError, ValueError, UnicodeDecodeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(
            f"a table cannot be read: {one_line(reason)}", where=file, remedy="get or write the table again"
        ) from error


def _rows(file: Path, shard: str, label: str | None) -> tuple[list[PackedRow], list[str] | None, str]:
    """Rows of one table, the names of its ClassLabel if it has one, and its column of images."""
    schema = _schema(file)
    features = _features(schema)
    column = _label_column(file, schema, features, label)
    image = _image_column(file, schema, column)
    names = features.get(column, {}).get("names")
    order = [str(name) for name in names] if isinstance(names, list) else None
    found = []
    for number, value in enumerate(_labels(file, column)):
        wrong = value is None or isinstance(value, bool) or not isinstance(value, str | int) or value == ""
        if wrong or (order is not None and isinstance(value, int) and not 0 <= value < len(order)):
            raise DatasetError(
                f"a row of a table has no label: {one_line(repr(value)[:80])} in column {column!r}",
                where=f"{file}, row {number}",
                remedy="remove the row, or give another column with --label",
            )
        found.append(
            PackedRow(shard, number, order[value] if order is not None and isinstance(value, int) else str(value))
        )
    return found, order, image


def _schema(file: Path) -> Any:
    if file.suffix == ARROW:
        return _open_arrow(str(file)).schema
    parquet = _open_parquet(str(file))
    for group in range(parquet.num_row_groups):
        if parquet.metadata.row_group(group).total_byte_size > MOST_GROUP:
            raise ValueError(f"row group {group} has more than {MOST_GROUP:,} bytes")
    return parquet.schema_arrow


def _labels(file: Path, column: str) -> list[Any]:
    if file.suffix == ARROW:
        values = _open_arrow(str(file)).column(column)
        values.validate(full=True)
    else:
        values = _open_parquet(str(file)).read(columns=[column]).column(column)
    return values.to_pylist()


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` says of the columns, by their names."""
    try:
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return {key: value for key, value in said.items() if isinstance(value, dict)} if isinstance(said, dict) else {}


def _label_column(file: Path, schema: Any, features: dict[str, Any], label: str | None) -> str:
    if label is not None:
        if label in schema.names:
            return label
        raise UsageError(
            f"there is no column {label!r}",
            where=file,
            remedy=f"choose one of {', '.join(map(one_line, schema.names))}",
        )
    declared = [key for key, value in features.items() if value.get("_type") == "ClassLabel" and key in schema.names]
    likely = [key for key in LABELS if key in schema.names]
    if len(declared) == 1 or likely:
        return declared[0] if len(declared) == 1 else likely[0]
    raise UsageError(
        f"it is not clear which column has the labels: {', '.join(map(one_line, schema.names))}",
        where=file,
        remedy=NO_LABEL,
    )


def _image_column(file: Path, schema: Any, label: str) -> str:
    types = _arrow().types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(f.name == "bytes" and holds_bytes(f.type) for f in kind)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found = [field.name for field in schema if field.name != label and holds_bytes(field.type)]
    if len(found) != 1:
        raise DatasetError(
            f"one column must have the bytes of images, and here are "
            f"{len(found)}: {', '.join(map(one_line, schema.names))}",
            where=file,
            remedy="write the table with one column of images (with `datasets`, embed their files)",
        )
    return found[0]


def _numbers(rows: dict[str, list[PackedRow]]) -> list[str] | None:
    labels = {row.label for members in rows.values() for row in members}
    return sorted(labels, key=int) if labels and all(label.isdecimal() for label in labels) else None


@lru_cache(maxsize=FILES)
def _open_arrow(file: str) -> Any:
    """The table in a file, mapped into memory: its stream as `datasets` writes it, or Arrow's file format."""
    arrow = _arrow()
    source = arrow.memory_map(file)
    try:
        return arrow.ipc.open_stream(source).read_all()
    except arrow.ArrowInvalid:
        source.seek(0)
        return arrow.ipc.open_file(source).read_all()


@lru_cache(maxsize=FILES)
def _open_parquet(file: str) -> Any:
    return _arrow().parquet.ParquetFile(file, memory_map=True)


@lru_cache(maxsize=GROUPS)
def _group(file: str, group: int, column: str) -> Any:
    return _arrow().parquet.ParquetFile(file, memory_map=True).read_row_group(group, columns=[column]).column(column)


@lru_cache(maxsize=FILES)
def _group_ends(file: str) -> list[int]:
    ends, metadata = [0], _open_parquet(file).metadata
    for group in range(metadata.num_row_groups):
        ends.append(ends[-1] + metadata.row_group(group).num_rows)
    return ends


def _read_arrow(file: Path, row: PackedRow, column: str) -> bytes:
    return _bytes(lambda: _open_arrow(str(file)).column(column)[row.row])


def _read_parquet(file: Path, row: PackedRow, column: str) -> bytes:
    from bisect import bisect_right

    ends = _group_ends(str(file))
    group = bisect_right(ends, row.row) - 1
    return _bytes(lambda: _group(str(file), group, column)[row.row - ends[group]])


def _bytes(take: Any) -> bytes:
    """The bytes of one image; a row that only names a file has none."""
    try:
        value = take().as_py()
    except (_arrow().ArrowException, LookupError, ValueError) as error:
        raise ImageError(f"a row of a table cannot be read: {error}") from error
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ImageError("the table has no bytes of this image, and files that it names are not followed")
    return data
