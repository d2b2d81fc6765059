"""The command line: one file a verb."""

from __future__ import annotations


def main() -> None:
    """Entry point of `tosca`."""
    from tosca_cache.cli.app import app

    app()
