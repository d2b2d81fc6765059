"""Writes docs/cli.md from `--help`; a test asserts that the file is what this script writes.

python tools/write_cli_docs.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from tosca_cache.cli.app import app

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"
HEADER = """# Command line

Written by `python tools/write_cli_docs.py` from `--help`.
"""


def commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all verbs, a group before its members."""
    members = getattr(command, "commands", {})  # typer's groups need not be click's
    found = [path]
    for name in sorted(members):
        found += commands(members[name], (*path, name))
    return found


def help_text(path: tuple[str, ...]) -> str:
    """What `tosca PATH --help` prints, 100 columns wide and without colour."""
    environment = {"TERMINAL_WIDTH": "100", "COLUMNS": "100", "NO_COLOR": "1", "TOSCA_CACHE": "", "TOSCA_RUNS": ""}
    result = CliRunner().invoke(
        app, [*path, "--help"], prog_name="tosca", env=environment, terminal_width=100, max_content_width=100
    )
    if result.exit_code:
        raise RuntimeError(result.output)
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def document() -> str:
    """The whole of docs/cli.md."""
    parts = [HEADER]
    for path in commands(typer.main.get_command(app)):
        parts.append(f"## {' '.join(('tosca', *path))}\n\n```\n{help_text(path)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(document(), encoding="utf-8")
