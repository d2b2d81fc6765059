"""WebDataset: tar shards of samples (KEY.jpg and KEY.cls or KEY.json beside each other), of which headers are read."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from tosca_cache.datasets.archives import archive_errors, tar_members
from tosca_cache.errors import DatasetError
from tosca_cache.files import strict_json
from tosca_cache.text import one_line

MOST_LABEL = 1 << 20  # bytes of a file that says a label
Places = list[tuple[int, int]]  # first byte and number of bytes of each image


def read_labels(file: Path, label: str | None, suffixes: frozenset[str]) -> tuple[list[str], None, Places]:
    """(labels, None, places) of the samples of a shard: what stands in KEY.cls, or in a field of KEY.json.

    label: the field; `label` if None.

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
                labels.append(_label(files, label))
            except ValueError as error:
                raise DatasetError(
                    f"a sample of a shard cannot be used: {error}",
                    where=f"{file}, row {number}",
                    remedy="docs/packed.md says what a shard holds",
                ) from error
            places.append(files[images[0]][:2])
    return labels, None, places


def _members(opened: IO[bytes]) -> Any:
    """(key, suffix, (first byte, bytes, what it says if it is a label)) of the files of a tar; keys as WebDataset's."""
    for tar, member in tar_members(opened, "r:"):
        folder, _, name = member.name.rpartition("/")
        key, _, suffix = name.partition(".")
        if key and member.isreg():
            says = suffix.lower() in ("cls", "json") and member.size <= MOST_LABEL
            content = tar.extractfile(member).read() if says else None  # type: ignore[union-attr]
            yield (folder, key), suffix.lower(), (member.offset_data, member.size, content)


def read_image(places: Mapping[Path, Places], file: Path, row: int) -> bytes:
    """The bytes of an image."""
    start, size = places[file][row]
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)


def _label(files: Mapping[str, tuple[int, int, bytes | None]], label: str | None) -> str:
    """The label of a sample; raises `ValueError` if it has none."""
    source = "cls" if "cls" in files and label is None else "json"
    _, size, content = files.get(source, (0, 0, b"{}"))
    if content is None:
        raise ValueError(f"its label has {size:,} bytes")
    try:
        found: Any = content.decode().strip() if source == "cls" else strict_json(content)
    except ValueError as error:
        raise ValueError(f"its label cannot be read: {error}") from error
    if source == "json":
        found = found.get(label or "label") if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise ValueError("it has no label; give the field of KEY.json with --label NAME")
    return str(found)
