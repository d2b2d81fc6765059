"""Which array of a foreign file is what: said by the user, or guessed from the names that people give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tosca_cache.errors import UsageError
from tosca_cache.store.layout import SPLITS
from tosca_cache.untrusted import Header
from tosca_cache.untrusted.headers import TEXT

FEATURES, VIEWS, LABELS, SPLIT, DOMAINS, PATHS = "features", "views", "labels", "split", "domains", "paths"
CLASS_NAMES, DOMAIN_NAMES = "class_names", "domain_names"
ROW_ROLES = (FEATURES, VIEWS, LABELS, DOMAINS, PATHS)
ROLES = (FEATURES, VIEWS, LABELS, SPLIT, DOMAINS, PATHS, CLASS_NAMES, DOMAIN_NAMES)
NONE = "none"
SHOWN = 12  # arrays that a message lists

# First the likelier names. Words are compared in lower case, without what separates them.
_WORDS: Mapping[str, tuple[str, ...]] = {
    FEATURES: (
        *("features", "feature", "feats", "feat", "embeddings", "embedding", "embeds", "embed", "embs", "emb", "x"),
        *("data", "vectors", "representations", "z", "cls", "hidden"),
    ),
    VIEWS: ("views", "augmented", "viewfeatures", "augmentedfeatures", "xaug"),
    LABELS: (
        "labels",
        "label",
        "y",
        "targets",
        "target",
        "classids",
        "classid",
        "class",
        "classes",
        "gt",
        "groundtruth",
    ),
    SPLIT: ("split", "splits", "istest", "istrain", "testmask", "trainmask", "subset", "partition"),
    DOMAINS: ("domains", "domain", "domainids", "domainlabels", "environment", "environments"),
    PATHS: ("paths", "path", "filenames", "filename", "files", "filepaths", "imagepaths", "keys", "urls"),
    CLASS_NAMES: ("classnames", "classname", "names", "labelnames", "targetnames", "categories", "classes"),
    DOMAIN_NAMES: ("domainnames",),
}
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "tr", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "te", "tst"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val"),
}
_MODALITIES = {"image", "images", "img", "audio", "text", "clip", "dino", "dinov2", "dinov3", "all", "pooled", "visual"}
Pair = tuple[str, str]


@dataclass(frozen=True)
class Roles:
    """The name of the array of each role, or a pair (train's, test's) of separate ones. guessed: those not said."""

    names: Mapping[str, str | Pair]
    guessed: frozenset[str] = frozenset()

    @property
    def separate(self) -> bool:
        """Whether train and test rows are in separate arrays."""
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


def parse_choice(option: str, text: str) -> str | Pair:
    """`NAME`, or `TRAIN,TEST` for arrays of separate splits, of which one may be empty (`x_train,`)."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not any(parts):
        raise UsageError(
            f"{text!r} names no array", where=option, remedy="give NAME, or TRAIN,TEST for separate splits"
        )
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def settle(arrays: Mapping[str, Header], said: Mapping[str, str | Pair], where: str) -> Roles:
    """The array of every role that there is: as said, else by its name.

    arrays: by name. said: {role: name, pair of names, or `none`}. where: the file, for messages.

    Raises `UsageError`, listing what there is, for an array that is missing and if features or labels cannot be guessed.
    """
    for role, choice in said.items():
        for name in choice if isinstance(choice, tuple) else (choice,):
            if name not in arrays and name not in ("", NONE):
                raise UsageError(
                    f"there is no array {name!r}",
                    where=where,
                    remedy=f"--{_option(role)} takes one of: {listed(arrays)}",
                )
    named = _named(arrays)
    separate = any(isinstance(said.get(role), tuple) for role in ROW_ROLES) or (
        FEATURES not in said and LABELS not in said and all(_pair(named, role) for role in (FEATURES, LABELS))
    )
    names: dict[str, str | Pair] = {}
    for role in ROLES:
        found = said[role] if role in said else _guess(named, role, separate=separate and role in ROW_ROLES)
        if found is not None and found != NONE:
            names[role] = found
    guessed = {role for role in names if role not in said}
    for role, fallback in ((FEATURES, _only_features), (LABELS, _only_labels)):
        if role not in names:
            found = None if separate else fallback(arrays, names)
            if found is None:
                raise UsageError(
                    f"which array holds the {role} cannot be guessed",
                    where=where,
                    remedy=f"add --{role} NAME, or --{role} TRAIN,TEST; there are: {listed(arrays)}",
                )
            names[role] = found
            guessed.add(role)
    if separate:
        _check_pairs(names, where)
    return Roles({role: names[role] for role in ROLES if role in names}, frozenset(guessed))


def listed(arrays: Mapping[str, Header]) -> str:
    """The arrays of a file in words."""
    shown = [header.describe() for header in arrays.values()]
    return "; ".join(shown[:SHOWN]) + (f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "") or "none"


def _option(role: str) -> str:
    return role.replace("_", "-")


def _named(arrays: Mapping[str, Header]) -> dict[tuple[str, str], str]:
    """{(role, split or ""): array} of what the names say; the likeliest name of each."""
    ranked: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name, header in arrays.items():
        for role, split, rank in _readings(name, header):
            ranked.setdefault((role, split), []).append((rank, name))
    return {key: min(found)[1] for key, found in ranked.items()}


def _readings(name: str, header: Header) -> Iterable[tuple[str, str, int]]:
    """What a name may mean: (role, split, how unlikely)."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    known = {_joined(words): ""}
    splits = [word for word in words if word in _SPLIT_WORDS]
    if len(splits) == 1:
        known[_joined(word for word in words if word not in splits)] = _SPLIT_WORDS[splits[0]]
    elif not splits:
        for word in ("train", "test", "val"):  # xtrain, trainx
            for rest in (_joined(words).removesuffix(word), _joined(words).removeprefix(word)):
                if rest != _joined(words):
                    known[rest] = word
    for text, split in known.items():
        for role, vocabulary in _WORDS.items():
            if text in vocabulary and _fits(role, header):
                yield role, split, vocabulary.index(text)


def _joined(words: Iterable[str]) -> str:
    words = list(words)
    return "".join([word for word in words if word not in _MODALITIES] or words)


def _fits(role: str, header: Header) -> bool:
    """Whether an array can have a role by its type and dimensions; one that cannot be read is kept, to say why not."""
    text, dimensions = header.dtype == TEXT, len(header.shape)
    if not header.dtype:
        return role in (FEATURES, LABELS)
    match role:
        case "features" | "views":
            return not text and dimensions in (2, 3)
        case "paths" | "class_names" | "domain_names":
            return text and dimensions == 1
    return dimensions in (1, 2)


def _pair(named: Mapping[tuple[str, str], str], role: str) -> Pair | None:
    train, test = named.get((role, "train")), named.get((role, "test")) or named.get((role, "val"))
    return (train, test) if train and test else None


def _guess(named: Mapping[tuple[str, str], str], role: str, *, separate: bool) -> str | Pair | None:
    if separate:
        train, test = named.get((role, "train"), ""), named.get((role, "test")) or named.get((role, "val"), "")
        return (train, test) if train or test else None
    return named.get((role, ""))


def _only_features(arrays: Mapping[str, Header], names: Mapping[str, str | Pair]) -> str | None:
    fit = [
        h.name for h in arrays.values() if h.dtype[1:2] == "f" and len(h.shape) in (2, 3) and h.name not in _all(names)
    ]
    return fit[0] if len(fit) == 1 else None


def _only_labels(arrays: Mapping[str, Header], names: Mapping[str, str | Pair]) -> str | None:
    features = names[FEATURES]
    if not isinstance(features, str):
        return None
    rows = (arrays[features].true_shape or (0,))[0]
    fit = [
        h.name
        for h in arrays.values()
        if h.true_shape == (rows,) and (h.dtype == TEXT or h.dtype[1:2] in "iu") and h.name not in _all(names)
    ]
    return fit[0] if len(fit) == 1 else None


def _all(names: Mapping[str, str | Pair]) -> set[str]:
    return set(Roles(names).used())


def _check_pairs(names: Mapping[str, str | Pair], where: str) -> None:
    for role in ROW_ROLES:
        name = names.get(role)
        needed = role in (FEATURES, LABELS)
        if isinstance(name, str) or (needed and not all(name or ("",))):
            raise UsageError(
                f"train and test have separate arrays, but {role} has one: {name!r}",
                where=where,
                remedy=f"give --{role} TRAIN,TEST" + ("" if needed else f", or --{role} none"),
            )
    split = names.get(SPLIT)
    if split is not None:
        raise UsageError(
            f"train and test have separate arrays, and {split!r} divides them once more",
            where=where,
            remedy="leave one of them out: --split none",
        )
