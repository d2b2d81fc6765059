"""Tables of Hugging Face's datasets: Arrow files of `save_to_disk`, or Parquet files, read with pyarrow.

Images are a column of bytes, or of {bytes, path} with the bytes in it: no path is followed.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from tosca_cache.errors import DatasetError, ImageError, UsageError
from tosca_cache.text import one_line

MOST_GROUP = 1 << 30  # bytes of a row group of Parquet, which is read as a whole
FILES, GROUPS = 64, 8  # that are kept open, that are kept in memory
LABELS = ("label", "labels", "class", "fine_label")  # columns that hold labels where none is named


def read_labels(file: Path, label: str | None, suffixes: frozenset[str]) -> tuple[list[str], list[str] | None, str]:
    """(labels, names of the ClassLabel if they are one, column of images) of the rows of a table.

    label: the column of labels; if None the one ClassLabel, or the first of `LABELS`.

    Raises `UsageError`: pyarrow is not here, or there is no such column; `DatasetError`: the table is damaged, has not one
    column of images, or a row has no label.
    """
    with _table_errors(file):
        schema = _schema(file)
        try:
            features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
            classes = {key: value["names"] for key, value in features.items() if value["_type"] == "ClassLabel"}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            classes = {}
        column = _label_column(file, schema.names, [key for key in classes if key in schema.names], label)
        image = _image_column(file, schema, column)
        values = _labels(file, column)
    order = list(map(str, classes[column])) if isinstance(classes.get(column), list) else None
    found = []
    for number, value in enumerate(values):
        wrong = value is None or isinstance(value, bool) or not isinstance(value, str | int) or value == ""
        if wrong or (order is not None and isinstance(value, int) and not 0 <= value < len(order)):
            raise DatasetError(
                f"a row of a table has no label: {one_line(repr(value)[:80])} in column {column!r}",
                where=f"{file}, row {number}",
                remedy="remove the row, or give another column with --label",
            )
        found.append(order[value] if order is not None and isinstance(value, int) else str(value))
    return found, order, image


def read_image(columns: Mapping[Path, str], file: Path, row: int) -> bytes:
    """The bytes of one image; raises `ImageError` if there are none."""
    try:
        value = _column(str(file), row, columns[file]).as_py()
    except (_arrow().ArrowException, LookupError, ValueError) as error:
        raise ImageError(f"a row of a table cannot be read: {error}") from error
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ImageError("the table has no bytes of this image, and files that it names are not followed")
    return data


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
    except (_arrow().ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(
            f"a table cannot be read: {one_line(reason)}", where=file, remedy="get or write the table again"
        ) from error


@lru_cache(maxsize=FILES)
def _open(file: str) -> Any:
    """A Parquet file, or the table in an Arrow file (`datasets` writes streams), mapped into memory."""
    arrow = _arrow()
    if file.endswith(".parquet"):
        return arrow.parquet.ParquetFile(file, memory_map=True)
    source = arrow.memory_map(file)
    try:
        return arrow.ipc.open_stream(source).read_all()
    except arrow.ArrowInvalid:
        source.seek(0)
        return arrow.ipc.open_file(source).read_all()


def _schema(file: Path) -> Any:
    table = _open(str(file))
    if file.suffix == ".arrow":
        return table.schema
    for size in (table.metadata.row_group(group).total_byte_size for group in range(table.num_row_groups)):
        if size > MOST_GROUP:
            raise ValueError(f"a row group has more than {MOST_GROUP:,} bytes")
    return table.schema_arrow


def _labels(file: Path, column: str) -> list[Any]:
    table = _open(str(file))
    values = (table.read(columns=[column]) if file.suffix == ".parquet" else table).column(column)
    values.validate(full=True)
    return list(values.to_pylist())


def _column(file: str, row: int, column: str) -> Any:
    if file.endswith(".arrow"):
        return _open(file).column(column)[row]
    ends = _group_ends(file)
    group = bisect_right(ends, row)
    return _group(file, group, column)[row - (ends[group - 1] if group else 0)]


@lru_cache(maxsize=FILES)
def _group_ends(file: str) -> list[int]:
    metadata = _open(file).metadata
    return list(accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))


@lru_cache(maxsize=GROUPS)
def _group(file: str, group: int, column: str) -> Any:
    # A file of its own, since one is not read by several threads.
    return _arrow().parquet.ParquetFile(file, memory_map=True).read_row_group(group, columns=[column]).column(column)


def forget() -> None:
    """Opens no file as it was when it was listed before: it may be another one by now."""
    for kept in (_open, _group_ends, _group):
        kept.cache_clear()


def _label_column(file: Path, names: list[str], declared: list[str], label: str | None) -> str:
    if label is not None and label not in names:
        raise UsageError(
            f"there is no column {label!r}", where=file, remedy=f"choose one of {', '.join(map(one_line, names))}"
        )
    likely = [key for key in LABELS if key in names]
    found = label or (declared[0] if len(declared) == 1 else next(iter(likely), None))
    if found is None:
        raise UsageError(
            f"it is not clear which column has the labels: {', '.join(map(one_line, names))}",
            where=file,
            remedy="give the column with --label NAME",
        )
    return found


def _image_column(file: Path, schema: Any, label: str) -> str:
    types = _arrow().types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(f.name == "bytes" and holds_bytes(f.type) for f in kind)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found = [field.name for field in schema if field.name != label and holds_bytes(field.type)]
    if len(found) != 1:
        raise DatasetError(
            f"one column must have the bytes of images, and here are {len(found)}: "
            f"{', '.join(map(one_line, schema.names))}",
            where=file,
            remedy="write the table with one column of images (with `datasets`, embed their files)",
        )
    return found[0]
