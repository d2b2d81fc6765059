"""Writing settings down: as TOML that can be read again, as rows for `--show-config`, as rows for the docs."""

from __future__ import annotations

import json

from tosca_cache.config.checks import expected, none_word
from tosca_cache.config.resolve import Resolved
from tosca_cache.config.schema import KEYS, SECTIONS, TrainConfig, default_of, help_text, kind_of, section_of
from tosca_cache.text import shortened


def to_toml(config: TrainConfig) -> str:
    """Every setting that has an effect as a TOML file of ours; `resolve(config=that file)` gives an equal `TrainConfig`."""
    lines = ["# Every setting of one run. Repeat it with: tosca train --config THIS_FILE"]
    for section, keys in SECTIONS.items():
        written = (key for key in keys if key not in config.idle)
        lines += ["", f"[{section}]", *(f"{key} = {_toml_value(key, getattr(config, key))}" for key in written)]
    return "\n".join(lines) + "\n"


def show(resolved: Resolved) -> list[tuple[str, str, str]]:
    """Rows (key, value, where it came from) of every setting that counts, then of the keys without effect and why."""
    config = resolved.config
    used = [key for key in KEYS if key not in config.idle]
    rows = [(key, shortened(_toml_value(key, getattr(config, key))), resolved.origin[key]) for key in used]
    return rows + [(key, "(no effect)", reason) for key, reason in resolved.ignored.items()]


def describe() -> list[tuple[str, str, str, str, str]]:
    """Rows (section, key, default, what it takes, help) of every setting, for the docs."""
    return [
        (section_of(key), key, _toml_value(key, default_of(key)), expected(kind_of(key)), help_text(key))
        for key in KEYS
    ]


def _toml_value(key: str, value: object) -> str:
    """A value as TOML writes it; None as the word that the key has for it."""
    value = none_word(kind_of(key)) if value is None else value
    # What JSON writes for booleans, finite numbers, strings and flat lists is TOML too. Text holds no control
    # characters (see checks.text), and non-ASCII is kept, as TOML has no surrogate pairs.
    return json.dumps(value, ensure_ascii=False)
