"""WebDataset: tar shards of samples (KEY.jpg and KEY.cls or KEY.json beside each other), of which headers are read."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO

from tosca_cache.datasets.archives import Bounded, archive_errors, tar_members
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
        for number, (_, members) in enumerate(groupby(_members(file, opened), itemgetter(0))):
            found, said = {}, {}
            for _, suffix, place, content in members:
                found[suffix], said[suffix] = place, content
            images = [suffix for suffix in found if f".{suffix.rpartition('.')[2]}" in suffixes]
            if len(images) != 1:
                problem = f"it has {len(images) or 'no'} images among {sorted(map(one_line, found))}"
                raise _wrong(f"{file}, row {number}", problem)
            labels.append(_label(f"{file}, row {number}", said, label))
            places.append(found[images[0]])
    return labels, None, places


def _members(file: Path, opened: IO[bytes]) -> Iterator[tuple[tuple[str, str], str, tuple[int, int], bytes]]:
    """(key, suffix, place, content if it says a label) of the files of a tar; the rule of keys is WebDataset's own."""
    for tar, member in tar_members(Bounded(opened, sys.maxsize)):
        folder, _, name = member.name.rpartition("/")
        key, _, suffix = name.partition(".")
        if not key or not member.isreg():
            continue
        content = b""
        if suffix.lower() in ("cls", "json"):
            if member.size > MOST_LABEL:
                raise _wrong(f"{file}, {one_line(member.name)}", f"its label has {member.size:,} bytes")
            stored = tar.extractfile(member)
            assert stored is not None
            content = stored.read()
        yield (folder, key), suffix.lower(), (member.offset_data, member.size), content


def read_image(places: Mapping[Path, Places], file: Path, row: int) -> bytes:
    """The bytes of an image."""
    start, size = places[file][row]
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)


def _label(where: str, said: Mapping[str, bytes], label: str | None) -> str:
    try:
        if "cls" in said and label is None:
            found: object = said["cls"].decode().strip()
        else:
            fields = strict_json(said.get("json", b"{}"))
            found = fields.get(label or "label") if isinstance(fields, dict) else None
    except ValueError as error:
        raise _wrong(where, f"its label cannot be read: {error}") from error
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise _wrong(where, "it has no label; give the field of KEY.json with --label NAME")
    return str(found)


def _wrong(where: str, problem: str) -> DatasetError:
    return DatasetError(
        f"a sample of a shard cannot be used: {problem}",
        where=where,
        remedy="docs/packed.md says what a shard holds",
    )
