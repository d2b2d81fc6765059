"""The command line as a whole: launcher, help, documentation, errors."""

import subprocess
import sys
from pathlib import Path

import typer
import write_cli_docs

from tosca_cache.cli.app import app

ROOT = Path(__file__).parents[2]
PATHS = write_cli_docs.commands(typer.main.get_command(app))


def run(*command):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)


def test_launcher_does_what_the_installed_command_does():
    installed = Path(sys.executable).with_name("tosca")
    for arguments in (["train", "--help"], ["train", "--epochs", "0"]):
        ours, theirs = run(sys.executable, "cli.py", *arguments), run(installed, *arguments)
        assert ours.returncode == theirs.returncode
        assert ours.stdout == theirs.stdout.replace("Usage: tosca", "Usage: cli.py")
        assert ours.stderr.replace("cli.py", "tosca") == theirs.stderr


def test_every_verb_and_option_has_help_which_the_docs_have():
    written = write_cli_docs.TARGET.read_text(encoding="utf-8")
    assert written == write_cli_docs.document(), "run: python tools/write_cli_docs.py"
    for path in PATHS:
        command = typer.main.get_command(app)
        for name in path:
            command = command.commands[name]
        assert command.help or command.callback is None
        options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
        assert all(one.help for one in options), path


def test_readme_names_only_commands_and_options_that_exist():
    """Every `tosca ...` line in a code block of the README and docs parses up to its options' names."""
    known = {" ".join(path): write_cli_docs.help_text(path) for path in PATHS}
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if document == write_cli_docs.TARGET:
            continue
        for line in document.read_text(encoding="utf-8").splitlines():
            words = line.strip().removeprefix("$ ").split("#")[0].split()
            if words[:1] != ["tosca"] or len(words) < 2:
                continue
            verb = " ".join(words[1:3]) if " ".join(words[1:3]) in known else words[1]
            assert verb in known, f"{document.name}: {line}"
            for word in words:
                if word.startswith("--"):
                    assert word.split("=")[0] in known[verb], f"{document.name}: {line}"
