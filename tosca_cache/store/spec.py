"""What a store says it is: the fingerprint, as an explicit and readable specification of plain JSON values."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tosca_cache.names import name_problem

FORMAT = 1
PRECISIONS = ("fp32", "bf16", "fp16")
UNKNOWN = "unknown"  # the precision of features that were computed elsewhere
DTYPES = ("float16", "float32")
ABSENT = "(absent)"
FROZEN = "frozen"
PIECES = ("last", "all")

_REQUIRED: Mapping[str, Mapping[str, type]] = {
    "dataset": {"name": str, "listing_digest": str, "classes": int, "splits": dict},
    "backbone": {"name": str, "tag": str, "weights_digest": str, "dim": int},
    "transform": {},
    "views": {"count": int, "seed": int, "test_count": int},
}


@dataclass(frozen=True)
class StoreSpec:
    """The fingerprint of a store: whoever has the same specification has interchangeable features.

    dataset: name, listing_digest, classes (their number), splits ({"train": N, "test": N}: rows that were listed).
    backbone: name (arch), tag, weights_digest, dim (width d of a feature); of an adapted one also `adapted`: kind, digests
        of it, of its base and of its modules, whether the base's features stand beside, and the classes it was adapted on.
        Where a feature is several pieces, `pieces` are their names in order, and `widths` how many numbers each has.
    transform: every field of the test transform and of the training augmentation.
    views: count V of augmented views a train row, seed they derive from, test_count of augmented views a test row.
    precision: arithmetic of the forward pass, `fp32`, `bf16` or `fp16`.
    dtype: how features are stored, `float16` or `float32`.
    format: version of the store's layout.
    source: None for features that were extracted here. For imported ones, which say little about how they came about:
        `kind` (`imported`), and by what else two imports can differ (names and SHA-256 of the files, their arrays' roles).
        Their transform is empty, and their precision may be `unknown`.

    Raises `ValueError` for missing keys, for values that are not plain JSON, and for a name of the dataset that no
    file can have (runs and ledgers are called by it); may hold further keys inside the groups.
    """

    dataset: Mapping[str, Any]
    backbone: Mapping[str, Any]
    transform: Mapping[str, Any]
    views: Mapping[str, Any]
    precision: str
    dtype: str
    format: int = FORMAT
    source: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for group, required in _REQUIRED.items():
            value = plain(getattr(self, group), group)
            if not isinstance(value, dict):
                raise ValueError(f"{group} must be a mapping, not {value!r}")
            for key, kind in required.items():
                if type(value.get(key)) is not kind:
                    raise ValueError(f"{group}.{key} must be {kind.__name__}, not {value.get(key, ABSENT)!r}")
            object.__setattr__(self, group, value)
        if problem := name_problem(self.dataset["name"]):
            raise ValueError(f"dataset.name: {problem}")
        self._check_pieces()
        self._check_source()
        _check_choice("dtype", self.dtype, DTYPES)
        if type(self.format) is not int:
            raise ValueError(f"format must be int, not {self.format!r}")

    def _check_pieces(self) -> None:
        names, widths = self.backbone.get("pieces", []), self.backbone.get("widths", [])
        right = isinstance(names, list) and isinstance(widths, list) and len(names) == len(widths)
        right = right and all(type(name) is str for name in names) and all(type(n) is int and n > 0 for n in widths)
        if not right or (names and sum(widths) != self.backbone["dim"]):
            raise ValueError("backbone.pieces and backbone.widths do not make up backbone.dim")

    def _check_source(self) -> None:
        if self.source is None:
            _check_choice("precision", self.precision, PRECISIONS)
            return
        source = plain(self.source, "source")
        if not isinstance(source, dict) or type(source.get("kind")) is not str:
            raise ValueError(f"source must be a mapping with a kind, not {source!r}")
        object.__setattr__(self, "source", source)
        _check_choice("precision", self.precision, (*PRECISIONS, UNKNOWN))

    def rows(self, split: str) -> int:
        """Rows of a split that were listed."""
        return int(self.dataset["splits"][split])

    def view_count(self, split: str) -> int:
        """1+V, the views of a row of a split, the clean one included."""
        return 1 + int(self.views["count" if split == "train" else "test_count"])

    @property
    def imported(self) -> bool:
        """Whether the features come from a file of arrays and not from images: then there is no transform to speak of."""
        return self.source is not None

    @property
    def pieces(self) -> tuple[tuple[str, int], ...]:
        """Names and widths of what a feature is made of, in order; empty for the backbone's own feature alone."""
        return tuple(zip(self.backbone.get("pieces", []), self.backbone.get("widths", []), strict=True))

    def columns(self, pieces: str = "last") -> slice:
        """Where the `last` piece of a feature stands, or `all`; raises `ValueError` for other words."""
        _check_choice("pieces", pieces, PIECES)
        widths = [width for _, width in self.pieces]
        start = sum(widths[:-1]) if pieces == "last" else 0
        return slice(start, int(self.backbone["dim"]))

    @property
    def adapted(self) -> Mapping[str, Any] | None:
        """What is recorded of modules that were trained inside the backbone; None for a frozen one."""
        found = self.backbone.get("adapted")
        return found if isinstance(found, dict) else None

    @property
    def first_task(self) -> tuple[str, ...] | None:
        """Names of the classes that the backbone was adapted on; None for a frozen one."""
        return None if self.adapted is None else tuple(map(str, self.adapted.get("first_task") or ()))

    @property
    def features(self) -> str:
        """`frozen`, or `adapted backbone (KIND)`: results on the one are not to be held against those on the other."""
        if self.adapted is None:
            return FROZEN
        beside = ", frozen features beside" if self.adapted.get("with_base") else ""
        return f"adapted backbone ({self.adapted.get('kind')}{beside})"

    @property
    def shown_backbone(self) -> str:
        """The backbone's name; with the kind of an adapted one, and its pieces: `vit_nano+adapter+base+6layers+mean`."""
        parts, pieces = [self.backbone["name"]], [name.partition("@")[0] for name, _ in self.pieces]
        if self.adapted is not None:
            parts += [self.adapted.get("kind"), *(["base"] if self.adapted.get("with_base") else [])]
        parts += [f"{len(pieces)}layers"] if len(pieces) > 1 else []
        return "+".join(map(str, [*parts, *(name for name in pieces[-1:] if name != "cls")]))

    @classmethod
    def from_dict(cls, value: Any) -> StoreSpec:
        """The inverse of `to_dict`; raises `ValueError` for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or set(value) | {"source"} != names or value.get("source", value) is None:
            raise ValueError(f"a specification has the keys {', '.join(sorted(names))}")
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """A sorted, nested copy of plain JSON values; `source` is left out where there is none."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.source is None:
            del values["source"]
        copied = plain(values, "specification")
        assert isinstance(copied, dict)
        return copied

    def flat(self) -> dict[str, Any]:
        """Every value under its dotted name, sorted: {"backbone.dim": 768, ...}."""
        return dict(sorted(flatten(self.to_dict())))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON text: the order in which keys were given plays no part."""
        return hashlib.sha256(canonical(self.to_dict()).encode()).hexdigest()

    def differences(self, other: StoreSpec) -> list[tuple[str, Any, Any]]:
        """(dotted field, ours, theirs) of every field that differs, sorted; empty exactly if the digests are equal."""
        return compare(self.flat(), other.flat())

    def __hash__(self) -> int:
        return hash(self.digest())


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, ours, theirs) of every entry of two flat mappings that differs, sorted; `ABSENT` where there is none."""
    pairs = ((key, ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in sorted(ours.keys() | theirs.keys()))
    return [(key, a, b) for key, a, b in pairs if canonical(a) != canonical(b)]


def canonical(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, ASCII only, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def plain(value: Any, where: str) -> Any:
    """A sorted copy of plain JSON values, tuples as lists; raises `ValueError` naming the place of anything else."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str or "." in key:
                raise ValueError(f"{where}: {key!r} cannot be a key, keys are strings without dots")
        return {key: plain(value[key], f"{where}.{key}") for key in sorted(value)}
    raise ValueError(f"{where} must be a plain JSON value, not {value!r}")


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value within nested mappings under its dotted name."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
