"""Writing settings down: as TOML that can be read again, as rows for `--show-config`, as rows for the docs."""

from __future__ import annotations

import json

from tosca_cache.config.checks import OrNone
from tosca_cache.config.resolve import Resolved
from tosca_cache.config.schema import KEYS, SECTIONS, TrainConfig, check_of, default_of, help_text, section_of


def to_toml(config: TrainConfig) -> str:
    """Every setting as a TOML file of ours; `resolve(config=that file)` gives an equal `TrainConfig` back."""
    lines = ["# Every setting of one run. Repeat it with: tosca train --config THIS_FILE"]
    for section, keys in SECTIONS.items():
        lines += ["", f"[{section}]", *(f"{key} = {_toml_value(key, getattr(config, key))}" for key in keys)]
    return "\n".join(lines) + "\n"


def show(resolved: Resolved) -> list[tuple[str, str, str]]:
    """Rows (key, value, where it came from) of every setting, then of the keys that had no effect and why."""
    rows = [(key, _toml_value(key, getattr(resolved.config, key)), resolved.origin[key]) for key in KEYS]
    return rows + [(key, "(no effect)", reason) for key, reason in resolved.ignored.items()]


def describe() -> list[tuple[str, str, str, str, str]]:
    """Rows (section, key, default, what it takes, help) of every setting, for the docs."""
    return [
        (section_of(key), key, _toml_value(key, default_of(key)), check_of(key).expected, help_text(key))
        for key in KEYS
    ]


def _toml_value(key: str, value: object) -> str:
    """A value as TOML writes it; None as the word that the key has for it."""
    check = check_of(key)
    if value is None and isinstance(check, OrNone):
        value = check.word
    # What JSON writes for booleans, finite numbers, strings and flat lists is TOML too. Text holds no control
    # characters (see checks.Text), and non-ASCII is kept, as TOML has no surrogate pairs.
    return json.dumps(value, ensure_ascii=False)
