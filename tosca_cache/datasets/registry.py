"""The datasets that have a name: what they hold, where they must lie, and where they are published."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tosca_cache.errors import UsageError

Layout = Literal["folders", "cifar100", "embedded"]

FOLDERS_LAYOUT = "train/CLASS/*.jpg and test/CLASS/*.jpg"
CIFAR_LAYOUT = "cifar-100-python/{train,test,meta}, as torchvision unpacks it"
RELEASE = "the archives that the RevisitingCIL and PILOT repositories link to"
RELEASE_URL = "https://github.com/zhoudw-zdw/RevisitingCIL#dataset, https://github.com/sun-hailong/LAMDA-PILOT"


@dataclass(frozen=True)
class KnownDataset:
    """One named dataset.

    classes, train, test: counts as packaged for the published numbers (methods.md 18.1).
    layout: `folders` (an ImageFolder tree), `cifar100` (torchvision's files), `embedded` (made by this package).
    places: folders below the data root to look in, in order; the first is the one that messages name.
    md5: checksum of the published archive, where one is stated.
    published: where to get it.
    """

    name: str
    classes: int
    train: int
    test: int
    _: KW_ONLY
    layout: Layout = "folders"
    places: tuple[str, ...] = ()
    md5: str | None = None
    published: str = f"{RELEASE} ({RELEASE_URL})"

    @property
    def layout_wanted(self) -> str:
        """The files that are wanted in its folder."""
        return {"folders": FOLDERS_LAYOUT, "cifar100": CIFAR_LAYOUT, "embedded": "made by this package"}[self.layout]

    @property
    def wanted(self) -> str:
        """The layout and counts that are wanted, in one line."""
        return f"{self.layout_wanted}: {self.classes} classes, {self.train} train and {self.test} test images"

    def candidates(self, data_root: Path) -> list[Path]:
        """The folders it may lie in."""
        return [data_root / place for place in self.places]


def _released(name: str, counts: tuple[int, int, int], md5: str, *places: str) -> KnownDataset:
    return KnownDataset(name, *counts, places=places, md5=md5)


_ALL = (
    KnownDataset(
        "cifar100",
        100,
        50000,
        10000,
        layout="cifar100",
        places=(".", "cifar100"),
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        published="https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-100 python version)",
    ),
    _released("cub", (200, 9430, 2358), "85e342a2d5f941e740193602057df7a5", "cub"),
    _released("imageneta", (200, 5981, 1519), "7f4aaf0b1532b7a0bd670822c152d3c5", "imagenet-a", "imageneta"),
    _released("imagenetr", (200, 24000, 6000), "730aa3fb9c7d2ec0b6381c6b23040681", "imagenet-r", "imagenetr"),
    _released("omnibenchmark", (300, 89697, 5985), "f1c30808a707f9197c6c811ea52e5cbb", "omnibenchmark"),
    _released("vtab", (50, 1796, 8619), "a9c37bde6105a2516c900b0c33a437c1", "vtab-cil/vtab", "vtab"),
    _released("objectnet", (200, 26509, 6628), "63ff7443a47bd682016a8ec59b8cc1bc", "objectnet"),
    KnownDataset("digits", 10, 1258, 539, layout="embedded", published="part of scikit-learn"),
    KnownDataset(
        "digits-domains", 10, 1258, 539, layout="embedded", published="part of scikit-learn, under domain shifts"
    ),
    KnownDataset("glyphs", 100, 6000, 2000, layout="embedded", published="rendered from the fonts of matplotlib"),
)

REGISTRY: Mapping[str, KnownDataset] = MappingProxyType({dataset.name: dataset for dataset in _ALL})
ALIASES: Mapping[str, str] = MappingProxyType({"cifar224": "cifar100"})  # what the reference calls it


def known(name: str) -> KnownDataset | None:
    """The dataset of that name or alias, None if there is none."""
    return REGISTRY.get(ALIASES.get(name, name))


def unknown_dataset(name: str) -> UsageError:
    """The error for a name that is neither known nor a folder, with the nearest names."""
    near = difflib.get_close_matches(name.lower(), [*REGISTRY, *ALIASES], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UsageError(
        f"there is no dataset called {name!r}, and no folder of that name",
        where="--dataset",
        remedy=f"{hint}`tosca datasets` lists the names; a folder of images is given by its path",
    )
