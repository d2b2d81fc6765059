"""The datasets that have a name: what they hold, where they must lie, and which archive they come in.

Checksums, and links to archives, are copied from where each entry says; nothing was downloaded to make this table.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote, urlsplit

from tosca_cache.errors import UsageError
from tosca_cache.names import name_problem

Layout = Literal["folders", "cifar100", "embedded"]

CIFAR_FOLDER = "cifar-100-python"
LAYOUTS: Mapping[Layout, str] = {
    "folders": "train/CLASS/*.jpg and test/CLASS/*.jpg",
    "cifar100": f"{CIFAR_FOLDER}/{{train,test,meta}}, as torchvision unpacks it",
    "embedded": "made by this package",
}
RELEASE = "the archives that RevisitingCIL and PILOT link to (https://github.com/zhoudw-zdw/RevisitingCIL#dataset)"
ISSUE = "the archives' author, github.com/LAMDA-CL/RevisitingCIL/issues/5"
TORCHVISION = "torchvision's source"
_ONEDRIVE = "https://entuedu-my.sharepoint.com/:u:/g/personal/n2207876b_e_ntu_edu_sg/"


@dataclass(frozen=True)
class KnownDataset:
    """One named dataset.

    classes, train, test: counts as packaged for the published numbers (methods.md 18.1); all 0 if nobody states them.
    layout: see `LAYOUTS`. place: its folder below the data root.
    archive: the file's name, also below a mirror. url, drive, page: its address, its number on Google Drive, or the page
        from which only a browser gets it. size: bytes, where they are publicly known.
    md5: of the archive; None if nobody states it. stated_by: who does.
    benchmark: whether numbers of the field were published on it: it is then read as they were made, with orientation as
        stored, and not normalised under the reference's backbone.
    """

    name: str
    classes: int = 0
    train: int = 0
    test: int = 0
    _: KW_ONLY
    layout: Layout = "folders"
    place: str = ""
    archive: str | None = None
    url: str | None = None
    drive: str | None = None
    page: str | None = None
    size: int | None = None
    md5: str | None = None
    stated_by: str = "nobody"
    published: str = TORCHVISION
    benchmark: bool = False

    @property
    def counts(self) -> tuple[int, int, int]:
        """(classes, train images, test images)."""
        return self.classes, self.train, self.test

    @property
    def wanted(self) -> str:
        """The layout and counts that are wanted, and where they were published, in one line."""
        counts = f"{self.classes} classes, {self.train} train and {self.test} test images"
        return f"{LAYOUTS[self.layout]}: {counts}; published: {self.published}, archive with md5 {self.md5}"

    @property
    def origin(self) -> str:
        """Where its archive is, in one line."""
        return self.url or (f"Google Drive, {self.drive}" if self.drive else f"{self.page} (with a browser)")


def _released(
    name: str, counts: tuple[int, int, int], place: str, archive: str, md5: str, drive: str | None = None
) -> KnownDataset:
    """One of the archives of RevisitingCIL: links of its README, checksums of its issue 5."""
    page = None if drive else f"{_ONEDRIVE}EZFv9uaaO1hBj7Y40KoCvYkBnuUZHnHnjMda6obiDpiIWw?e=4n8Kpy"
    where = {"archive": archive, "drive": drive, "page": page, "md5": md5, "stated_by": ISSUE, "published": RELEASE}
    return KnownDataset(name, *counts, place=place, benchmark=True, **where)  # type: ignore[arg-type]


_ALL = (
    KnownDataset(
        *("cifar100", 100, 50000, 10000),
        layout="cifar100",
        place=CIFAR_FOLDER,
        archive="cifar-100-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        size=169_001_437,
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        stated_by="its page and torchvision; size as PyTorch's tutorials state it",
        published="https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-100 python version)",
        benchmark=True,
    ),
    _released(
        *("cub", (200, 9430, 2358), "cub", "cub.zip"),
        *("85e342a2d5f941e740193602057df7a5", "1XbUpnWpJPnItt5zQ6sHJnsjPncnNLvWb"),
    ),
    _released(
        *("imageneta", (200, 5981, 1519), "imagenet-a", "ina.zip"),
        *("7f4aaf0b1532b7a0bd670822c152d3c5", "19l52ua_vvTtttgVRziCZJjal0TPE9f2p"),
    ),
    _released(
        *("imagenetr", (200, 24000, 6000), "imagenet-r", "imagenet-r.zip"),
        *("730aa3fb9c7d2ec0b6381c6b23040681", "1SG4TbiL8_DooekztyCVK8mPmfhMo8fkR"),
    ),
    _released(
        *("omnibenchmark", (300, 89697, 5985), "omnibenchmark", "omnibenchmark.zip"),
        *("f1c30808a707f9197c6c811ea52e5cbb", "1AbCP3zBMtv_TDXJypOCnOgX8hJmvJm3u"),
    ),
    _released(
        *("vtab", (50, 1796, 8619), "vtab-cil/vtab", "vtab.zip"),
        *("a9c37bde6105a2516c900b0c33a437c1", "1xUiwlnx4k0oDhYi26KL5KwrCAya-mvJ_"),
    ),
    _released("objectnet", (200, 26509, 6628), "objectnet", "objnet.tgz", "63ff7443a47bd682016a8ec59b8cc1bc"),
    KnownDataset(
        *("imagenette", 10, 9469, 3925),
        place="imagenette",
        archive="imagenette2-160.tgz",
        url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        md5="e793b78cc4c9e9a4ccc0c1155377a412",
        stated_by=TORCHVISION,
    ),
    KnownDataset("digits", 10, 1258, 539, layout="embedded", published="part of scikit-learn"),
    KnownDataset(
        *("digits-domains", 10, 1258, 539), layout="embedded", published="part of scikit-learn, under domain shifts"
    ),
    KnownDataset("glyphs", 100, 6000, 2000, layout="embedded", published="rendered from the fonts of matplotlib"),
)

REGISTRY: Mapping[str, KnownDataset] = MappingProxyType({dataset.name: dataset for dataset in _ALL})
_ALIASES = {
    "cifar224": "cifar100",
    "imagenet-a": "imageneta",
    "imagenet-r": "imagenetr",
}  # as the reference, and people


def known(name: str) -> KnownDataset | None:
    """The dataset of that name or alias, None if there is none."""
    return REGISTRY.get(_ALIASES.get(name, name))


def unknown_dataset(name: str, what: str = "and no folder of that name") -> UsageError:
    """The error for a name that is not known, with the nearest names."""
    near = difflib.get_close_matches(name.lower(), [*REGISTRY, *_ALIASES], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UsageError(
        f"there is no dataset called {name!r}, {what}",
        where="--dataset",
        remedy=f"{hint}`tosca datasets` lists the names; a folder of images is given by its path",
    )


def is_address(name: str) -> bool:
    """Whether a dataset is given by the address of an archive."""
    return name.startswith(("http://", "https://"))


def source_of(name: str) -> KnownDataset:
    """The dataset that can be fetched under a name, or from the address of anybody's archive, called as its file is.

    Raises `UsageError` for one that has no archive.
    """
    if not is_address(name):
        found = known(name)
        if found is None or found.archive is None:
            raise unknown_dataset(name, "which could be fetched")
        return found
    archive = PurePosixPath(unquote(urlsplit(name).path)).name
    stem = archive.split(".")[0]
    if (problem := name_problem(stem)) or stem.startswith("-"):
        raise UsageError(
            f"the address ends in no name of an archive: {problem or stem}",
            where=name[:200],
            remedy="give one such as https://HOST/photos.zip",
        )
    return KnownDataset(stem, place=stem, archive=archive, url=name)
