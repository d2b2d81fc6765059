"""From settings to the store that they want."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tosca_cache.config import Resolved, TrainConfig
from tosca_cache.config.resolve import COMMAND_LINE
from tosca_cache.errors import ConfigError, FingerprintMismatch
from tosca_cache.extract.adapted import is_adapted, read_card
from tosca_cache.extract.names import resolve_name
from tosca_cache.store import Store, check_store, find_store, list_stores, open_store
from tosca_cache.store.spec import ABSENT

# The settings that choose a store, and what they ask of its fingerprint.
FIELDS = {
    "dataset": ("dataset.name",),
    "backbone": ("backbone.name", "backbone.tag", "backbone.adapted.digest"),
    "normalize": ("transform.normalize",),
    "img_size": ("transform.image_size",),
    "views": ("views.count",),
}
NAMED = "the store named by --store"


def wanted_store(
    resolved: Resolved, store: Path | None, root: Path, *, command: Sequence[str] = ()
) -> tuple[Store, Resolved, list[str]]:
    """The store at `store`, or the one in `root` that is what the settings ask for.

    A store that is named overrules what files ask for; what the command line asks for must be so.

    Arguments:
        command: the words of the command, for a message that says which command works.

    Returns the store, the settings as they are for it, and a line for each setting that the named store has overruled.

    Raises `StoreError` if there is none, `FingerprintMismatch` naming every field in which it differs.
    """
    wanted = wanted_fields(resolved.config)
    if store is None:
        try:
            return find_store(root, resolved.config.dataset, wanted), resolved, []
        except FingerprintMismatch as error:
            raise _with_command(error, resolved, root, command) from None
    opened = open_store(store)
    firm = [key for key in FIELDS if resolved.origin[key] == COMMAND_LINE]
    asked = {"dataset.name": resolved.config.dataset} | wanted
    check_store(
        opened, {field: value for key in firm for field in FIELDS[key] if (value := asked.get(field)) is not None}
    )
    return opened, *_overruled(resolved, opened, [key for key in FIELDS if key not in firm])


def wanted_fields(config: TrainConfig) -> dict[str, object]:
    """Dotted fields of the fingerprint, and their values, that the configuration asks for."""
    wanted: dict[str, object] = {
        "transform.normalize": config.normalize,
        "transform.image_size": config.img_size,
        "views.count": config.views,
    }
    if config.backbone is not None and is_adapted(config.backbone):
        wanted["backbone.adapted.digest"] = read_card(Path(config.backbone)).digest
    elif config.backbone is not None:  # a name means the frozen backbone, or what `_has` says of an adapted one
        arch, tag = resolve_name(config.backbone)
        wanted |= {"backbone.name": arch, "backbone.tag": tag or None}
        wanted |= {} if "+" in tag else {"backbone.adapted.digest": ABSENT}
    return {field: value for field, value in wanted.items() if value is not None}


def _overruled(resolved: Resolved, store: Store, keys: Sequence[str]) -> tuple[Resolved, list[str]]:
    """The settings with those changed in which the store differs, and what is to be said of each."""
    config, origin, lines = resolved.config, dict(resolved.origin), []
    asked = {"dataset.name": config.dataset} | wanted_fields(config)
    for key in keys:
        mine = {field: asked[field] for field in FIELDS[key] if field in asked}
        try:
            check_store(store, mine)
        except FingerprintMismatch:
            lines.append(f"{key} {getattr(config, key)} ({origin[key]}) does not count: {NAMED} has {_has(store, key)}")
            config, origin[key] = _changed(config, key, _has(store, key)), NAMED
    return replace(resolved, config=config, origin=origin), lines


def _has(store: Store, key: str) -> Any:
    """What a store has of a setting, as the setting would be written."""
    flat = store.spec.flat()
    values = [flat.get(field) for field in FIELDS[key]]
    return ".".join(str(value) for value in values[:2] if value) if key == "backbone" else values[0]


def _changed(config: TrainConfig, key: str, value: Any) -> TrainConfig:
    try:
        changed: dict[str, Any] = {key: value}
        return replace(config, **changed)
    except ConfigError:  # features that were imported may have been made in ways that we have no word for
        unasked: dict[str, Any] = {} if key == "dataset" else {key: None}
        return replace(config, **unasked)


def _with_command(
    error: FingerprintMismatch, resolved: Resolved, root: Path, command: Sequence[str]
) -> FingerprintMismatch:
    """The error, with the command that takes the store of that dataset which differs least."""
    wanted, words = wanted_fields(resolved.config), list(command)
    found = []
    for summary in list_stores(root):
        spec = summary.spec
        if spec is not None and summary.state == "finished" and spec.dataset["name"] == resolved.config.dataset:
            flat = spec.flat()
            differing = {field for field, value in wanted.items() if flat.get(field) != value}
            found.append((len(differing), str(summary.path), differing))
    if not found or not words:
        return error
    _, path, differing = min(found)
    for key, fields in FIELDS.items():
        if resolved.origin[key] == COMMAND_LINE and differing & set(fields):
            words = _without(words, f"--{key.replace('_', '-')}")
    remedy = f"Train on it as it is: {shlex.join([*words, '--store', path])}\n         Or: {error.remedy}"
    return FingerprintMismatch(error.problem, where=error.where, remedy=remedy)


def _without(words: Sequence[str], option: str) -> list[str]:
    """A command without an option and its value."""
    kept, skip = [], False
    for word in words:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option
    return kept
