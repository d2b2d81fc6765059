"""WebDataset: tar shards of samples (KEY.jpg and KEY.cls beside each other), of which headers and labels are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO

from tosca_cache.datasets.archives import archive_errors, tar_members
from tosca_cache.errors import DatasetError
from tosca_cache.text import one_line

MOST_LABEL = 1 << 20  # bytes of a file that says a label
Places = list[tuple[int, int]]  # first byte and number of bytes of each image
_File = tuple[int, int, bytes | None]  # and what it says, if it is a label


def read_labels(file: Path, suffixes: frozenset[str]) -> tuple[list[str], None, Places]:
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


def read_image(places: Mapping[Path, Places], file: Path, row: int) -> bytes:
    """The bytes of an image."""
    start, size = places[file][row]
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)
