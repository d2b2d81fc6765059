"""Tables of Hugging Face's datasets: Arrow files of `save_to_disk`, or Parquet files, read with pyarrow.

Images are a column of bytes, or of {bytes, path} with the bytes in it: no path is followed.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from tosca_cache.errors import DatasetError, ImageError, UsageError
from tosca_cache.text import one_line

LABEL = "label"  # the column of labels
MOST_GROUP = 1 << 30  # bytes of a row group of Parquet, which is read as a whole
FILES, GROUPS = 64, 8  # that are kept open, that are kept in memory


def read_labels(file: Path, suffixes: frozenset[str]) -> tuple[list[str], list[str] | None, str]:
    """(labels, names of the ClassLabel if they are one, column of images) of the rows of a table: its column `label`.

    Raises `UsageError` if pyarrow is not here; `DatasetError`: the table is damaged, has no labels or not one column of
    images, or a row has no label.
    """
    arrow = _arrow()
    try:
        schema, values = _read(str(file))
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = one_line(" ".join(str(error).split())[:200])
        remedy = "get or write the table again"
        raise DatasetError(f"a table cannot be read: {reason}", where=file, remedy=remedy) from error
    images = [field.name for field in schema if field.name != LABEL and _holds_bytes(field.type)]
    if values is None or len(images) != 1:
        raise DatasetError(
            f"the table has the columns {', '.join(map(one_line, schema.names))}, and not one with the bytes of images "
            f"beside the one called {LABEL!r}",
            where=file,
            remedy="write it with these two (with `datasets`: rename_column, and embed the files of images)",
        )
    order, found = _class_names(schema), []
    for number, value in enumerate(values):
        wrong = isinstance(value, bool) or not isinstance(value, str | int) or value == ""
        if wrong or (order is not None and isinstance(value, int) and not 0 <= value < len(order)):
            raise DatasetError(
                f"a row of a table has no label: {one_line(repr(value)[:80])}",
                where=f"{file}, row {number}",
                remedy="remove the row, or give it a label",
            )
        found.append(order[value] if order is not None and isinstance(value, int) else str(value))
    return found, order, images[0]


def read_image(columns: Mapping[Path, str], file: Path, row: int) -> bytes:
    """The bytes of one image; raises `ImageError` if there are none."""
    try:
        value = _value(str(file), row, columns[file]).as_py()
    except (_arrow().ArrowException, LookupError, ValueError) as error:
        raise ImageError(f"a row of a table cannot be read: {error}") from error
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ImageError("the table has no bytes of this image, and files that it names are not followed")
    return data


def forget() -> None:
    """Opens no file as it was when it was listed before: it may be another one by now."""
    _open.cache_clear()
    _group.cache_clear()


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


def _read(file: str) -> tuple[Any, list[Any] | None]:
    """(schema, labels if there is a column of them) of a table."""
    table, ends = _open(file)
    schema = table.schema if ends is None else table.schema_arrow
    if ends is not None:
        metadata = table.metadata
        if any(metadata.row_group(group).total_byte_size > MOST_GROUP for group in range(len(ends))):
            raise ValueError(f"a row group has more than {MOST_GROUP:,} bytes")
    if LABEL not in schema.names:
        return schema, None
    values = (table if ends is None else table.read(columns=[LABEL])).column(LABEL)
    values.validate(full=True)
    return schema, list(values.to_pylist())


@lru_cache(maxsize=FILES)
def _open(file: str) -> tuple[Any, list[int] | None]:
    """The table in an Arrow file (`datasets` writes streams), mapped into memory; a Parquet file and its groups' ends."""
    arrow = _arrow()
    if file.endswith(".parquet"):
        table = arrow.parquet.ParquetFile(file, memory_map=True)
        rows = (table.metadata.row_group(group).num_rows for group in range(table.num_row_groups))
        return table, list(accumulate(rows))
    source = arrow.memory_map(file)
    try:
        return arrow.ipc.open_stream(source).read_all(), None
    except arrow.ArrowInvalid:
        source.seek(0)
        return arrow.ipc.open_file(source).read_all(), None


def _value(file: str, row: int, column: str) -> Any:
    table, ends = _open(file)
    if ends is None:
        return table.column(column)[row]
    group = bisect_right(ends, row)
    return _group(file, group, column)[row - (ends[group - 1] if group else 0)]


@lru_cache(maxsize=GROUPS)
def _group(file: str, group: int, column: str) -> Any:
    # A file of its own, since one is not read by several threads.
    return _arrow().parquet.ParquetFile(file, memory_map=True).read_row_group(group, columns=[column]).column(column)


def _class_names(schema: Any) -> list[str] | None:
    """The names of a ClassLabel, as `datasets` writes them into the schema; None for other columns."""
    try:
        feature = json.loads(schema.metadata[b"huggingface"])["info"]["features"][LABEL]
        return list(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _holds_bytes(kind: Any) -> bool:
    types = _arrow().types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))
