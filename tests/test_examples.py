"""The examples of the documentation run as they stand."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def test_grid_search(make_store, tmp_path):
    store = make_store(tmp_path / "store")
    command = [sys.executable, str(EXAMPLES / "grid_search.py"), str(store.path), str(tmp_path / "grid.sqlite")]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == second
    assert first.startswith("36 cells, chosen on 20% of each class's train rows held out")
    assert "chosen: last accuracy" in first
    assert (tmp_path / "grid.report.json").is_file()
    assert (tmp_path / "grid.best.toml").is_file()
