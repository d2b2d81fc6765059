"""Which array of an external file is what: named by the user, or one of a few usual names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tosca_cache.errors import UsageError
from tosca_cache.store.exchange.external import ExternalFile
from tosca_cache.store.layout import SPLITS

FEATURES, LABELS, SPLIT, DOMAINS, PATHS = "features", "labels", "split", "domains", "paths"
CLASS_NAMES, DOMAIN_NAMES = "class_names", "domain_names"
PER_ROW = (FEATURES, LABELS, DOMAINS, PATHS)
NONE = "none"
USUAL: Mapping[str, tuple[str, ...]] = {
    FEATURES: ("features", "feature", "embeddings", "x", "emb", "f"),
    LABELS: ("labels", "label", "y", "targets", "target"),
    SPLIT: ("split", "is_test", "is_train", "subset"),
    DOMAINS: ("domains", "domain"),
    PATHS: ("paths", "path", "filenames", "filename"),
    CLASS_NAMES: ("class_names", "classes", "label_names", "target_names"),
    DOMAIN_NAMES: ("domain_names",),
}
PAIRS = ("{name}_{split}", "{split}_{name}", "{split}/{name}")  # how arrays of separate splits are called
Name = str | tuple[str, str]  # of one array, or of train's and test's


@dataclass(frozen=True)
class Columns:
    """The array of each role, or a pair (train's, test's)."""

    names: Mapping[str, Name]

    @property
    def separate(self) -> bool:
        """Whether train and test rows are in arrays of their own."""
        return isinstance(self.names[FEATURES], tuple)

    def of(self, role: str, split: str | None = None) -> str | None:
        """The array of a role, of one split where they are separate; None if there is none."""
        name = self.names.get(role)
        if isinstance(name, tuple):
            name = name[SPLITS.index(split)] if split is not None else None
        return name or None

    def used(self) -> list[str]:
        """Every array that is used, once."""
        return each(self.names)

    def to_dict(self) -> dict[str, str | list[str]]:
        """Plain JSON values."""
        return {role: list(name) if isinstance(name, tuple) else name for role, name in self.names.items()}


def each(names: Mapping[str, Name]) -> list[str]:
    """Every name of an array, once."""
    found = [part for name in names.values() for part in (name if isinstance(name, tuple) else (name,))]
    return list(dict.fromkeys(name for name in found if name and name != NONE))


def parse_name(option: str, text: str) -> Name:
    """`NAME`, or `TRAIN,TEST` for arrays of separate splits, of which one may be empty (`x_train,`)."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not any(parts):
        raise UsageError(
            f"{text!r} names no array", where=option, remedy="give NAME, or TRAIN,TEST for separate splits"
        )
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def find_columns(file: ExternalFile, named: Mapping[str, Name]) -> Columns:
    """The array of every role that the file has: as named, else of a usual name.

    Arguments:
        named: {role: name, pair of names, or `none`}.

    Raises `UsageError`, listing what there is, for an array that is missing.
    """
    if missing := [name for name in each(named) if name not in file.arrays]:
        raise UsageError(f"there is no array {missing[0]!r}", where=file.path, remedy=f"name one of: {file.listed()}")
    lower = {name.lower(): name for name in reversed(list(file.arrays))}
    pairs = {role: _usual_pair(lower, role) for role in PER_ROW}
    separate = any(isinstance(named.get(role), tuple) for role in PER_ROW) or (
        not named.keys() & {FEATURES, LABELS} and None not in (pairs[FEATURES], pairs[LABELS])
    )
    names: dict[str, Name] = {}
    for role, usual in USUAL.items():
        found: Name | None = next((lower[name] for name in usual if name in lower), None)
        if separate and role in (*PER_ROW, SPLIT):
            found = pairs.get(role)
        chosen = named.get(role, found)
        if chosen is not None and chosen != NONE:
            names[role] = chosen
    _check(names, separate, file)
    return Columns(names)


def _usual_pair(lower: Mapping[str, str], role: str) -> tuple[str, str] | None:
    for name in USUAL[role]:
        for pattern in PAIRS:
            train, test = (lower.get(pattern.format(name=name, split=split)) for split in SPLITS)
            if train and test:
                return train, test
    return None


def _check(names: Mapping[str, Name], separate: bool, file: ExternalFile) -> None:
    for role in (FEATURES, LABELS):
        if role not in names:
            raise UsageError(
                f"which array holds the {role} is not said",
                where=file.path,
                remedy=f"add --{role} NAME, or --{role} TRAIN,TEST; there are: {file.listed()}",
            )
    for role in PER_ROW if separate else ():
        name, needed = names.get(role), role in (FEATURES, LABELS)
        if isinstance(name, str) or (needed and not all(name or ())):
            raise UsageError(
                f"train and test have separate arrays, but {role} has one: {name!r}",
                where=file.path,
                remedy=f"give --{role} TRAIN,TEST" + ("" if needed else f", or --{role} none"),
            )
    if separate and SPLIT in names:
        raise UsageError(
            f"train and test have separate arrays, and {names[SPLIT]!r} divides them once more",
            where=file.path,
            remedy="leave one of them out: --split none",
        )
