"""Columns of .csv, .tsv and .parquet files, by pyarrow; their sizes are known before any of them is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import UsageError
from tosca_cache.store.exchange.external import FLOOR, RATIO, TEXT, ExternalArray, damaged, refusing

TABLES = (".csv", ".tsv", ".parquet")
_NUMBERED = re.compile(r"(.*?)([0-9]+)")


def read_table(path: Path, size: int) -> list[ExternalArray]:
    """The columns of a table; numeric ones that are numbered (f0, f1, ...) are one array [n, columns]."""
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"reading {path.suffix} needs pyarrow, which is not installed",
            where=path,
            remedy="pip install 'tosca-cache[exchange]'",
        ) from error
    try:
        if path.suffix.lower() == ".parquet":
            columns = _parquet(pa, path, size)
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            options = pyarrow.csv.ParseOptions(delimiter=delimiter)
            table = pyarrow.csv.read_csv(path, parse_options=options)
            columns = [
                _column(pa, name, table.schema.field(name).type, table.num_rows, partial(table.__getitem__, name))
                for name in table.column_names
            ]
    except pa.ArrowException as error:
        raise damaged(path, error) from error
    return _grouped(columns)


def _parquet(pa: Any, path: Path, size: int) -> list[ExternalArray]:
    file = pa.parquet.ParquetFile(path, memory_map=True)
    columns = [
        _column(pa, field.name, field.type, file.metadata.num_rows, partial(_parquet_column, file, field.name))
        for field in file.schema_arrow
    ]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    values = max((sum(g.column(c).num_values for g in groups) for c in range(file.metadata.num_columns)), default=0)
    claimed = max(8 * values, sum(group.total_byte_size for group in groups))
    if claimed > max(FLOOR, RATIO * size):
        raise ValueError(f"it claims to hold {claimed:,} bytes")
    return columns


def _parquet_column(file: Any, name: str) -> Any:
    return file.read(columns=[name])[name]


def _column(pa: Any, name: str, kind: Any, rows: int, load: Callable[[], Any]) -> ExternalArray:
    """A column: numbers, texts, or lists of as many numbers in every row."""
    types = pa.types
    if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
        width = kind.list_size if types.is_fixed_size_list(kind) else 0
        item = np.dtype(kind.value_type.to_pandas_dtype())
        return ExternalArray(name, (rows, width), item.name, rows * width * item.itemsize, lambda: _rows(load(), rows))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind) or types.is_null(kind):
        return ExternalArray(name, (rows,), TEXT, 8 * rows, lambda: _column_texts(name, load()))
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
        return ExternalArray(name, (rows,), dtype.name, rows * dtype.itemsize, lambda: _column_numbers(load()))
    return ExternalArray(name, (rows,), str(kind), 0, refusing(name, f"its type is {kind}", "give numbers or texts"))


def _column_texts(name: str, column: Any) -> list[str]:
    found = column.to_pylist()
    if any(text is None for text in found):
        row = found.index(None)
        raise UsageError(f"row {row} of column {name!a} is empty", where=name, remedy="fill it in, or leave it out")
    return list(map(str, found))


def _column_numbers(column: Any) -> NDArray[Any]:
    found: NDArray[Any] = column.to_numpy()
    return found


def _rows(column: Any, rows: int) -> NDArray[Any]:
    flat = column.combine_chunks()
    values: NDArray[Any] = flat.flatten().to_numpy(zero_copy_only=False)
    lengths = set(flat.value_lengths().to_pylist())
    if len(lengths) != 1 or None in lengths or len(values) != rows * next(iter(lengths)):
        raise ValueError("its rows have lists of different lengths")
    return values.reshape(rows, -1)


def _stacked(parts: list[ExternalArray]) -> NDArray[Any]:
    return np.stack([np.asarray(part.load()) for part in parts], 1)


def _grouped(columns: list[ExternalArray]) -> list[ExternalArray]:
    groups: dict[str, dict[int, ExternalArray]] = {}
    for column in columns:
        numbered = _NUMBERED.fullmatch(column.name)
        if numbered is not None and column.dtype != TEXT and len(column.shape) == 1:
            groups.setdefault(numbered[1], {})[int(numbered[2][:9])] = column
    found = {column.name: column for column in columns}
    for prefix, members in groups.items():
        order = sorted(members)
        if len(order) > 1 and order in (list(range(len(order))), list(range(1, len(order) + 1))):
            parts = [members[number] for number in order]
            for part in parts:
                del found[part.name]
            name = prefix.rstrip("_.- ") or "features"
            found[name] = ExternalArray(
                name,
                (parts[0].shape[0], len(parts)),
                np.result_type(*(np.dtype(part.dtype) for part in parts)).name,
                sum(part.bytes for part in parts),
                partial(_stacked, parts),
            )
    return list(found.values())
