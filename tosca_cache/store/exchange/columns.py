"""Which array of an external file is what: named by the user, or one of a few usual names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tosca_cache.errors import UsageError
from tosca_cache.store.exchange.external import ExternalFile
from tosca_cache.store.layout import SPLITS

FEATURES, VIEWS, LABELS, SPLIT, DOMAINS, PATHS = "features", "views", "labels", "split", "domains", "paths"
CLASS_NAMES, DOMAIN_NAMES = "class_names", "domain_names"
PER_ROW = (FEATURES, VIEWS, LABELS, DOMAINS, PATHS)
NONE = "none"
USUAL: Mapping[str, tuple[str, ...]] = {
    FEATURES: ("features", "feature", "embeddings", "x", "emb", "f"),
    VIEWS: ("views",),
    LABELS: ("labels", "label", "y", "targets", "target"),
    SPLIT: ("split", "is_test", "is_train", "subset"),
    DOMAINS: ("domains", "domain"),
    PATHS: ("paths", "path", "filenames", "filename"),
    CLASS_NAMES: ("class_names", "classes", "label_names", "target_names"),
    DOMAIN_NAMES: ("domain_names",),
}
Name = str | tuple[str, str]  # of one array, or of train's and test's


@dataclass(frozen=True)
class Columns:
    """The array of each role, or a pair (train's, test's). found: roles that were not named by the user."""

    names: Mapping[str, Name]
    found: frozenset[str] = frozenset()

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
        found = [part for name in self.names.values() for part in (name if isinstance(name, tuple) else (name,))]
        return list(dict.fromkeys(name for name in found if name))

    def to_dict(self) -> dict[str, str | list[str]]:
        """Plain JSON values."""
        return {role: list(name) if isinstance(name, tuple) else name for role, name in self.names.items()}


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
    for role, choice in named.items():
        for name in choice if isinstance(choice, tuple) else (choice,):
            if name not in file.arrays and name not in ("", NONE):
                raise UsageError(
                    f"there is no array {name!r}",
                    where=file.path,
                    remedy=f"--{role.replace('_', '-')} takes one of: {file.listed()}",
                )
    lower = {name.lower(): name for name in reversed(list(file.arrays))}
    pairs = {role: _usual_pair(lower, role) for role in PER_ROW}
    separate = any(isinstance(named.get(role), tuple) for role in PER_ROW) or (
        FEATURES not in named and LABELS not in named and pairs[FEATURES] is not None and pairs[LABELS] is not None
    )
    names: dict[str, Name] = {}
    for role in USUAL:
        usual = pairs[role] if separate and role in PER_ROW else _usual(lower, role)
        if separate and role == SPLIT and role not in named:
            usual = None
        chosen = named.get(role, usual)
        if chosen is not None and chosen != NONE:
            names[role] = chosen
    for role in (FEATURES, LABELS):
        if role not in names:
            raise UsageError(
                f"which array holds the {role} is not said",
                where=file.path,
                remedy=f"add --{role} NAME, or --{role} TRAIN,TEST; there are: {file.listed()}",
            )
    if separate:
        _check_pairs(names, file)
    return Columns(names, frozenset(role for role in names if role not in named))


def _usual(lower: Mapping[str, str], role: str) -> str | None:
    return next((lower[name] for name in USUAL[role] if name in lower), None)


def _usual_pair(lower: Mapping[str, str], role: str) -> tuple[str, str] | None:
    for name in USUAL[role]:
        for pattern in ("{name}_{split}", "{split}_{name}", "{split}/{name}"):
            both = [lower.get(pattern.format(name=name, split=split)) for split in SPLITS]
            if both[0] and both[1]:
                return both[0], both[1]
    return None


def _check_pairs(names: Mapping[str, Name], file: ExternalFile) -> None:
    for role in PER_ROW:
        name = names.get(role)
        needed = role in (FEATURES, LABELS)
        if isinstance(name, str) or (needed and not all(name or ("",))):
            raise UsageError(
                f"train and test have separate arrays, but {role} has one: {name!r}",
                where=file.path,
                remedy=f"give --{role} TRAIN,TEST" + ("" if needed else f", or --{role} none"),
            )
    if SPLIT in names:
        raise UsageError(
            f"train and test have separate arrays, and {names[SPLIT]!r} divides them once more",
            where=file.path,
            remedy="leave one of them out: --split none",
        )
