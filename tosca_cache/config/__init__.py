"""Settings of stage two: what they are, where they come from, and how they are written down. Imports no torch."""

from tosca_cache.config.files import find_config, read_config, shipped_configs
from tosca_cache.config.resolve import Resolved, config_of, resolve, show, to_toml
from tosca_cache.config.schema import (
    FLOWS,
    INCREMENTAL,
    NORMALIZATIONS,
    OPTIMIZERS,
    SCHEDULERS,
    Settings,
    TrainConfig,
    check_value,
    help_text,
)

__all__ = [
    "FLOWS",
    "INCREMENTAL",
    "NORMALIZATIONS",
    "OPTIMIZERS",
    "SCHEDULERS",
    "Resolved",
    "Settings",
    "TrainConfig",
    "check_value",
    "config_of",
    "find_config",
    "help_text",
    "read_config",
    "resolve",
    "shipped_configs",
    "show",
    "to_toml",
]
