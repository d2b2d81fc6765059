"""Images that lie many to a file (tables of Arrow and Parquet, tar shards): rows, splits and the opener that they share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tosca_cache.datasets.base import ImageDataset, Split
from tosca_cache.datasets.decoding import Decoding
from tosca_cache.datasets.folder_dataset import check_fraction, choose_test
from tosca_cache.datasets.folders import SPLITS
from tosca_cache.datasets.images import open_rgb
from tosca_cache.datasets.names import check_twins, counted, is_visible, listed
from tosca_cache.errors import DatasetError, ImageError, UsageError

_SPLIT = re.compile(r"(train|training|test|testing|validation|valid|val|dev)(?![a-z])", re.IGNORECASE)
_SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"}
HELD_OUT = "validation"  # stands for test where there is no test
NO_LABEL = "give the column or the key of the labels with --label NAME"


class PackedRow(NamedTuple):
    """One image. shard: its file, relative to the dataset. row: number in it, from 0. start, size: in bytes, of a tar."""

    shard: str
    row: int
    label: str
    start: int = 0
    size: int = 0

    @property
    def path(self) -> str:
        """Its identity, which takes nothing from names in the shard."""
        return f"{self.shard}/{self.row:08d}"


@dataclass(frozen=True)
class PackedOpener:
    """Opens a row by reading its bytes; see `ImageDataset.opener`.

    read: (file, row, column) -> the bytes of an image; raises `ImageError` where there are none. column: of a table.
    """

    root: Path
    rows: Mapping[str, Sequence[PackedRow]]
    decoding: Decoding
    read: Callable[[Path, PackedRow, str], bytes]
    column: str = ""

    def __call__(self, split: str, row: int) -> Image.Image:
        found = self.rows[split][row]
        file = self.root / found.shard
        try:
            return open_rgb(self.read(file, found, self.column), self.decoding)
        except (ImageError, OSError) as error:
            problem = error.problem if isinstance(error, ImageError) else f"a shard cannot be read: {error}"
            raise ImageError(
                problem,
                where=f"{file}, row {found.row}",
                remedy="replace the shard, or leave such rows out with --on-error skip",
            ) from error


def shard_files(root: Path, suffix: str) -> list[str]:
    """Files of a suffix below a folder (or the file itself), as paths relative to it, sorted; hidden ones are left out."""
    found = (path.relative_to(root) for path in root.rglob(f"*{suffix}") if path.is_file())
    return sorted(path.as_posix() for path in found if all(is_visible(part) for part in path.parts))


def by_split(shards: Iterable[str]) -> dict[str | None, list[str]]:
    """Shards by the split that their folder or file is called after; under None those that say nothing."""
    found: dict[str | None, list[str]] = defaultdict(list)
    for shard in shards:
        words = [match[1].lower() for part in Path(shard).parts if (match := _SPLIT.match(part))]
        found[_SPLIT_OF.get(words[0], HELD_OUT) if words else None].append(shard)
    if HELD_OUT in found and "test" not in found:
        found["test"] = found.pop(HELD_OUT)
    return dict(found)


def packed_dataset(
    opener: PackedOpener,
    name: str,
    order: Sequence[str] | None,
    test_fraction: float | None,
    seed: int,
    left_out: Mapping[str, Sequence[str]],
) -> ImageDataset:
    """The dataset of all rows of an opener, sorted by class, then by shard and row.

    Arguments:
        order: the classes in their order; by their names if None. Those without rows are left out.
        test_fraction, seed: as in `load_folder`, for rows without a test split.

    Raises:
        UsageError: `test_fraction` is missing, or given though there is a test split.
        DatasetError: a class is not in both splits.
    """
    check_fraction(test_fraction)
    root, rows = opener.root, {split: list(opener.rows.get(split, ())) for split in SPLITS}
    if not rows["test"]:
        rows = _divided(root, rows["train"], test_fraction, seed)
    elif test_fraction is not None:
        raise UsageError(
            "--test-fraction is for shards without a test split", where=root, remedy="leave --test-fraction out"
        )
    present = {split: {row.label for row in members} for split, members in rows.items()}
    for split, other in (SPLITS, SPLITS[::-1]):
        if only := present[split] - present[other]:
            raise DatasetError(
                f"{counted(only, 'class', 'classes')} only in {split}: {listed(only)}",
                where=root,
                remedy=f"add images of them to {other}, or give train shards only, with --test-fraction",
            )
    names = [label for label in order if label in present["train"]] if order else sorted(present["train"])
    check_twins("classes", names, root)
    number = {label: index for index, label in enumerate(names)}
    ordered = {split: tuple(sorted(members, key=lambda r: (number[r.label], r))) for split, members in rows.items()}
    splits = {
        split: Split(
            tuple(row.path for row in members),
            np.array([number[row.label] for row in members], dtype=np.int64),
            np.zeros(len(members), dtype=np.int64),
        )
        for split, members in ordered.items()
    }
    packed = PackedOpener(root, ordered, opener.decoding, opener.read, opener.column)
    return ImageDataset(
        name, tuple(names), (name,), splits, packed, root=str(root), decoding=opener.decoding, left_out=left_out
    )


def _divided(root: Path, rows: list[PackedRow], test_fraction: float | None, seed: int) -> dict[str, list[PackedRow]]:
    if test_fraction is None:
        raise UsageError("these shards have no test split", where=root, remedy="add --test-fraction 0.2")
    classes: dict[str, list[PackedRow]] = defaultdict(list)
    for row in rows:
        classes[row.label].append(row)
    divided: dict[str, list[PackedRow]] = {split: [] for split in SPLITS}
    for label, members in sorted(classes.items()):
        if len(members) < 2:
            raise DatasetError(
                f"class {label!r} has one image, which cannot be in both train and test",
                where=f"{root / members[0].shard}, row {members[0].row}",
                remedy="add images to the class, or remove it",
            )
        chosen = choose_test(sorted(row.path for row in members), test_fraction, seed, label)
        for row in members:
            divided["test" if row.path in chosen else "train"].append(row)
    return divided
