"""From listed images to a dataset: whatever lists them, names are checked, and rows divided, numbered and ordered, here."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tosca_cache.datasets.base import ImageDataset, IntArray, Split
from tosca_cache.datasets.decoding import Decoding, open_rgb
from tosca_cache.errors import DatasetError, ImageError, UsageError
from tosca_cache.seeds import numpy_generator
from tosca_cache.text import one_line

SPLITS = ("train", "test")
SHOWN = 5  # names in a message
# What archives, file managers and network disks leave behind; those that begin with a dot are hidden anyway.
LEFT_BEHIND = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "@recycle", "#snapshot"),
        *("lost+found", "$recycle.bin", "recycler", "system volume information", "__pycache__"),
    )
)


class Row(NamedTuple):
    """One listed image, before classes and domains have numbers.

    path: its identity. split: None if nothing says it. where: what lists it, for messages.
    """

    label: str
    path: str
    domain: str
    split: str | None
    where: str


@dataclass(frozen=True)
class FileOpener:
    """Opens the image of a row by its path; see `ImageDataset.opener`.

    read: (file, number) -> bytes, for rows that are numbers in a file (FILE/NUMBER); None where each is a file.
    """

    root: Path
    decoding: Decoding
    read: Callable[[Path, int], bytes] | None = None
    splits: Mapping[str, Split] | None = None

    def __call__(self, split: str, row: int) -> Image.Image:
        assert self.splits is not None
        path = self.root / self.splits[split].paths[row]
        if self.read is None:
            return open_rgb(path, self.decoding)
        try:
            return open_rgb(self.read(path.parent, int(path.name)), self.decoding)
        except (ImageError, OSError) as error:
            problem = error.problem if isinstance(error, ImageError) else f"a shard cannot be read: {error}"
            raise ImageError(
                problem,
                where=f"{path.parent}, row {int(path.name)}",
                remedy="replace the shard, or leave such rows out with --on-error skip",
            ) from error


def build_dataset(
    name: str,
    opener: FileOpener,
    rows: Sequence[Row],
    *,
    test_fraction: float | None = None,
    seed: int = 1993,
    order: Sequence[str] | None = None,
    left_out: Mapping[str, Sequence[str]] | None = None,
    only_train: bool = False,
) -> ImageDataset:
    """The dataset of these rows, sorted by class, then by path.

    Arguments:
        test_fraction: share of each class in each domain that becomes its test split, for rows without splits.
        seed: which rows those are.
        order: the classes in their order; by their names if None.
        only_train: all rows become train rows, whatever their split; nothing is divided or checked.

    Raises:
        UsageError: `test_fraction` is out of (0, 1), missing where it is needed, or given where rows say their splits.
        DatasetError: a class is not in both splits of a domain; names of classes, domains or images are one to the eye.
    """
    root, said = opener.root, dict(left_out or {})
    check_twins("classes", (row.label for row in rows), root)
    check_twins("domains", (row.domain for row in rows), root)
    check_twins("images", (row.path for row in rows), root)
    if only_train:
        rows = [row._replace(split="train") for row in rows]
    else:
        rows = _with_splits(rows, root, test_fraction, seed)
        _check_classes(rows, said)
    present = {row.label for row in rows}
    class_names = tuple(filter(present.__contains__, order)) if order else tuple(sorted(present))
    domain_names = tuple(sorted({row.domain for row in rows}))
    label_of = {label: number for number, label in enumerate(class_names)}
    domain_of = {domain: number for number, domain in enumerate(domain_names)}
    splits = {}
    for split in SPLITS:
        members = [(label_of[row.label], row.path.split("/"), row) for row in rows if row.split == split]
        ordered = [row for _, _, row in sorted(members, key=lambda member: member[:2])]
        splits[split] = Split(
            paths=tuple(row.path for row in ordered),
            labels=np.array([label_of[row.label] for row in ordered], dtype=np.int64),
            domains=np.array([domain_of[row.domain] for row in ordered], dtype=np.int64),
        )
    opener = replace(opener, splits=splits)
    return ImageDataset(
        name, class_names, domain_names, splits, opener, root=str(root), decoding=opener.decoding, left_out=said
    )


def keep_rows(dataset: ImageDataset, rows: Mapping[str, IntArray]) -> ImageDataset:
    """A dataset of files with some of its rows, in their order; classes and domains stay as they are numbered."""
    splits = {
        name: Split(
            tuple(split.paths[row] for row in rows[name].tolist()), split.labels[rows[name]], split.domains[rows[name]]
        )
        for name, split in dataset.splits.items()
    }
    assert isinstance(dataset.opener, FileOpener)
    return replace(dataset, splits=splits, opener=replace(dataset.opener, splits=splits))


def lost_classes(dataset: ImageDataset, split: str, kept: IntArray) -> str:
    """The classes of a split that have none of the rows that are kept, named; empty if there are none."""
    labels = dataset.splits[split].labels
    return listed([dataset.class_names[label] for label in np.setdiff1d(labels, labels[kept])])


def _with_splits(rows: Sequence[Row], root: Path, test_fraction: float | None, seed: int) -> Sequence[Row]:
    """Rows that all have a split: their own, or drawn by (seed, class, domain if there are several)."""
    if any(row.split is not None for row in rows):
        if test_fraction is not None:
            problem = "--test-fraction is for images without a test split, and these have one"
            raise UsageError(problem, where=root, remedy="leave --test-fraction out")
        return rows
    if test_fraction is None:
        raise UsageError("these images have no test split of their own", where=root, remedy="add --test-fraction 0.2")
    if not 0 < test_fraction < 1:
        problem = f"the test fraction must lie between 0 and 1, not {test_fraction}"
        raise UsageError(problem, where="--test-fraction", remedy="give for example --test-fraction 0.2")
    several = len({row.domain for row in rows}) > 1
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[(row.label, row.domain) if several else (row.label,)].append(row)
    divided = []
    for names, members in sorted(groups.items()):
        if len(members) < 2:
            raise DatasetError(
                f"class {' of domain '.join(map(repr, names))} has one image, which cannot be in both train and test",
                where=members[0].where,
                remedy="add images to the class, or remove it",
            )
        members.sort(key=lambda row: row.path.split("/"))
        # The nearest whole number to the share, at least one and not all; other classes play no part in which.
        count = min(max(round(test_fraction * len(members)), 1), len(members) - 1)
        chosen = set(numpy_generator(seed, "test-fraction", *names).permutation(len(members))[:count].tolist())
        divided += [row._replace(split="test" if n in chosen else "train") for n, row in enumerate(members)]
    return divided


def _check_classes(rows: Sequence[Row], left_out: Mapping[str, Sequence[str]]) -> None:
    """Raises `DatasetError` unless every class of a domain is in both its splits."""
    first: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        first.setdefault((row.domain, str(row.split), row.label), row)
    several = len({domain for domain, _, _ in first}) > 1
    for (domain, only, _), row in sorted(first.items()):
        other = "test" if only == "train" else "train"
        if (domain, other, row.label) not in first:
            names = [label for d, s, label in first if (d, s) == (domain, only) and (d, other, label) not in first]
            of = f" of domain {domain!r}" if several else ""
            raise DatasetError(
                f"classes{of} only in {only}: {listed(names)}{instead(left_out)}",
                where=row.where,
                remedy=f"add images of them to {other}, or remove them from {only}",
            )


def instead(left_out: Mapping[str, Iterable[str]]) -> str:
    """What was left out of a dataset, in brackets; empty if nothing was."""
    lines = left_out_lines(left_out)
    return f" (left out: {'; '.join(lines)})" if lines else ""


def left_out_lines(left_out: Mapping[str, Iterable[str]]) -> list[str]:
    """How many paths were left out for each reason, naming one."""
    found = ((why, list(paths)) for why, paths in left_out.items())
    return [f"{why}: {len(paths)} ({paths[0]}{', ...' if len(paths) > 1 else ''})" for why, paths in found if paths]


def is_visible(name: str) -> bool:
    """Whether a file or folder of that name is the user's: neither hidden nor left behind by a system or an archive."""
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def listed(names: Collection[str]) -> str:
    """The first five names in order, quoted, as text that is safe to print, and how many there are if more."""
    shown = ", ".join(f"'{one_line(name)}'" for name in sorted(names)[:SHOWN])
    return shown + (f", ... ({len(names)})" if len(names) > SHOWN else "")


def check_unicode(name: str, where: str | Path) -> None:
    """Raises `DatasetError` for a name with bytes that are no UTF-8, for which Python has surrogates."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise DatasetError("a file's name is not valid UTF-8", where=str(where), remedy="rename the file or folder")


def check_twins(what: str, names: Iterable[str], where: str | Path) -> None:
    """Raises `DatasetError` for two names that are one to the eye: composed and decomposed Unicode of the same text."""
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        if name.isascii():
            continue
        twin = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if twin != name:
            raise DatasetError(
                f"two {what} have the same name, once in composed and once in decomposed Unicode: "
                f"{twin!a} and {name!a}",
                where=str(where),
                remedy="rename one of them, or put their images together; some systems write é as one letter, others "
                "as e with an accent",
            )
