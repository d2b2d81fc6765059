"""What every dataset is to the rest: named rows with a class, a domain, and an image each; no model code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import DatasetError
from tosca_cache.names import name_problem

if TYPE_CHECKING:
    from PIL.Image import Image

    from tosca_cache.datasets.decoding import Decoding

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The rows of one split, in a fixed order.

    paths: identity of each row, relative to the dataset's folder, with forward slashes, unique within the split.
    labels: class index of each row into `ImageDataset.class_names`, [N].
    domains: domain index of each row into `ImageDataset.domain_names`, [N]; all 0 where there are no domains.
    """

    paths: tuple[str, ...]
    labels: IntArray
    domains: IntArray

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class ArrayOpener:
    """Opens a row of pixels held in memory, grey or RGB; see `ImageDataset.opener`."""

    pixels: Mapping[str, NDArray[np.uint8]]

    def __call__(self, split: str, row: int) -> Image:
        from PIL import Image

        return Image.fromarray(self.pixels[split][row]).convert("RGB")


@dataclass(frozen=True)
class ImageDataset:
    """A dataset that can be extracted: what exists, and how to open one image.

    name: the name it is asked for by (`cub`), or the folder's name.
    splits: `train` and `test`.
    opener: (split, row) -> RGB image; raises `ImageError` with the path if it cannot be decoded. Thread-safe.
    root: the folder it lies in; None for datasets made in memory.
    listed_in: the CSV file that lists it, or the one table or shard that holds it; None for all others.
    decoding: how its files are decoded, as `opener` does; None where images are no files of their own.
    left_out: why -> paths of files and folders beside the rows, which are no rows.
    unchecked: whether images may stand in both splits or in several classes, and nobody has looked.

    Raises `DatasetError` for a name that no file can have: runs and ledgers are called by it.
    """

    name: str
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    splits: Mapping[str, Split]
    opener: Callable[[str, int], Image] = field(repr=False, compare=False)
    root: str | None = None
    listed_in: str | None = None
    decoding: Decoding | None = None
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    unchecked: bool = False

    def __post_init__(self) -> None:
        if problem := name_problem(self.name):
            raise DatasetError(
                f"a dataset cannot be called so: {problem}",
                where=self.root,
                remedy="give its folder a plain name",
            )

    def open(self, split: str, row: int) -> Image:
        """The RGB image of one row; raises `ImageError` if it cannot be decoded."""
        return self.opener(split, row)

    def where(self, split: str, row: int) -> str:
        """The path of one row, below the dataset's folder if it has one."""
        path = self.splits[split].paths[row]
        return path if self.root is None else f"{self.root}/{path}"

    def listing_digest(self) -> str:
        """SHA-256 over class names, domain names and, per split, every row's path, label and domain."""
        listing = {
            "classes": self.class_names,
            "domains": self.domain_names,
            "splits": {
                name: [split.paths, split.labels.tolist(), split.domains.tolist()]
                for name, split in sorted(self.splits.items())
            },
        }
        text = json.dumps(listing, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
