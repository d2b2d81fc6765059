"""Two extractions of one store, as a user meets them."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import tosca

from tosca_cache.store import list_stores, partial_path


def run(*arguments, code=0):
    result = tosca(*arguments, code=code)
    return result.stdout + result.stderr


HOLDER = """
import sys
from pathlib import Path
from tosca_cache.store.locks import acquiring
with acquiring(Path(sys.argv[1])) as lock:
    pass
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["finishes", "is killed"])
def test_what_another_process_extracts_is_refused_until_it_has_ended(tiny, make_folder, tmp_path, end):
    """The other process holds the store that this command is about to write."""
    arguments = ["extract", "--dataset", make_folder(tmp_path / "pictures"), *tiny, "--views", "0", "--root"]
    whole = run(*arguments, tmp_path / "whole")
    name = Path(re.search(r"store: (.*)", whole)[1]).name
    store = tmp_path / "cache" / name
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", HOLDER, store], **pipes)
    assert other.stdout.readline() == "ready\n"
    refused = run(*arguments, tmp_path / "cache", code=1)
    assert f"process {other.pid} on" in refused and "since" in refused
    if end == "is killed":
        other.kill()
    other.communicate("end\n")
    assert "store: " in run(*arguments, tmp_path / "cache")
    assert other.returncode == (0 if end == "finishes" else -signal.SIGKILL)
    assert not partial_path(store).exists() and len(list_stores(tmp_path / "cache")) == 1
    theirs, ours = tmp_path / "whole" / name / "manifest.json", store / "manifest.json"
    assert theirs.read_bytes() == ours.read_bytes()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [name]
