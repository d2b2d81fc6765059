"""Where the archives of datasets are, and what their bytes must be; each says who states it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from tosca_cache.datasets.registry import REGISTRY, known
from tosca_cache.errors import UsageError
from tosca_cache.names import name_problem

ISSUE = "the archives' author, github.com/LAMDA-CL/RevisitingCIL/issues/5"
TORCHVISION = "torchvision's source"
_ONEDRIVE = "https://entuedu-my.sharepoint.com/:u:/g/personal/n2207876b_e_ntu_edu_sg/"


@dataclass(frozen=True)
class Source:
    """One archive.

    name: of the dataset. archive: the file's name, also below a mirror.
    url, drive: its address, or its number on Google Drive; neither for one that only a browser can get, from `page`.
    size: bytes, where they are publicly known. md5, sha256: of the archive; None if not stated. stated_by: by whom.
    inside: folders that lie together in the folder that is wanted. take: the one of them that is wanted, if not all.
    place: where it goes below the data root. counts: classes, train and test images (0 for a folder of classes), if known.
    renamed: folders that are called otherwise here.
    """

    name: str
    archive: str
    md5: str | None
    stated_by: str
    counts: tuple[int, int, int] | None
    place: str
    url: str | None = None
    drive: str | None = None
    page: str | None = None
    size: int | None = None
    sha256: str | None = None
    inside: tuple[str, ...] = ("train", "test")
    take: str | None = None
    renamed: tuple[tuple[str, str], ...] = ()

    @property
    def origin(self) -> str:
        """Where it is, in one line."""
        return self.url or (f"Google Drive, {self.drive}" if self.drive else f"{self.page} (with a browser)")


def _released(name: str, archive: str, drive: str | None = None, page: str | None = None) -> Source:
    """One of the archives of RevisitingCIL: links of its README, checksums of its issue 5."""
    of = REGISTRY[name]
    assert of.md5 is not None
    counts = (of.classes, of.train, of.test)
    return Source(name, archive, of.md5, ISSUE, counts, of.places[0], drive=drive, page=page)


def _classes(name: str, archive: str, md5: str, url: str, counts: tuple[int, int], take: str) -> Source:
    """One folder of classes, as torchvision gets it."""
    return Source(name, archive, md5, TORCHVISION, (*counts, 0), name, url=url, inside=(take,), take=take)


_ALL = (
    Source(
        "cifar100",
        "cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "its page and torchvision; sha256 as Keras, size as PyTorch's tutorials state it",
        (100, 50000, 10000),
        "cifar-100-python",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        size=169_001_437,
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        inside=("cifar-100-python",),
        take="cifar-100-python",
    ),
    _released("cub", "cub.zip", "1XbUpnWpJPnItt5zQ6sHJnsjPncnNLvWb"),
    _released("imageneta", "ina.zip", "19l52ua_vvTtttgVRziCZJjal0TPE9f2p"),
    _released("imagenetr", "imagenet-r.zip", "1SG4TbiL8_DooekztyCVK8mPmfhMo8fkR"),
    _released("omnibenchmark", "omnibenchmark.zip", "1AbCP3zBMtv_TDXJypOCnOgX8hJmvJm3u"),
    _released("vtab", "vtab.zip", "1xUiwlnx4k0oDhYi26KL5KwrCAya-mvJ_"),
    _released("objectnet", "objnet.tgz", page=f"{_ONEDRIVE}EZFv9uaaO1hBj7Y40KoCvYkBnuUZHnHnjMda6obiDpiIWw?e=4n8Kpy"),
    Source(
        "imagenette",
        "imagenette2-160.tgz",
        "e793b78cc4c9e9a4ccc0c1155377a412",
        TORCHVISION,
        (10, 9469, 3925),
        "imagenette",
        url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        inside=("train", "val"),
        renamed=(("val", "test"),),
    ),
    _classes(
        "eurosat",
        "EuroSAT.zip",
        "c8fa014336c82ac7804f0398fcb19387",
        "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
        (10, 27000),
        "2750",
    ),
    _classes(
        "dtd",
        "dtd-r1.0.1.tar.gz",
        "fff73e5086ae6bdbea199a49dfb8a4c1",
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        (47, 5640),
        "images",
    ),
    _classes(
        "food101",
        "food-101.tar.gz",
        "85eeb15f3717b99a5da872d97d918f87",
        "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
        (101, 101000),
        "images",
    ),
)

SOURCES: Mapping[str, Source] = MappingProxyType({source.name: source for source in _ALL})


def is_address(name: str) -> bool:
    """Whether a dataset is given by the address of an archive."""
    return name.startswith(("http://", "https://"))


def _at(address: str) -> Source:
    """An archive of anybody's, with train/CLASS and test/CLASS in it; it is called as its file is."""
    archive = PurePosixPath(unquote(urlsplit(address).path)).name
    stem = archive.split(".")[0]
    if (problem := name_problem(stem)) or stem.startswith("-"):
        raise UsageError(
            f"the address ends in no name of an archive: {problem or stem}",
            where=address[:200],
            remedy="give one such as https://HOST/photos.zip",
        )
    return Source(stem, archive, None, "nobody", None, stem, url=address)


def source_of(name: str) -> Source:
    """The source of a dataset by its name, with or without dashes, or by the address of its archive.

    Raises `UsageError` for one that has none.
    """
    if is_address(name):
        return _at(name)
    plain = name.lower().replace("-", "")
    found = known(plain) or known(name)
    source = SOURCES.get(found.name if found else plain)
    if source is not None:
        return source
    if found is not None and found.layout == "embedded":
        raise UsageError(
            f"{found.name} is made by this package: there is nothing to fetch", where=name, remedy="use it by its name"
        )
    near = difflib.get_close_matches(plain, SOURCES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(
        f"there is no dataset called {name!r} that could be fetched",
        where="NAME",
        remedy=f"{hint}`tosca fetch --list` lists them",
    )
