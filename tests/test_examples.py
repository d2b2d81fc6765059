"""The examples of the documentation run as they stand."""

import runpy
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def test_grid_search(make_store, tmp_path, monkeypatch, capsys):
    store = make_store(tmp_path / "store")
    monkeypatch.setattr(sys, "argv", ["grid_search.py", str(store.path), str(tmp_path / "grid.sqlite")])
    runpy.run_path(str(EXAMPLES / "grid_search.py"), run_name="__main__")
    first = capsys.readouterr().out
    runpy.run_path(str(EXAMPLES / "grid_search.py"), run_name="__main__")
    assert capsys.readouterr().out == first
    assert first.startswith("36 cells, chosen on 20% of each class's train rows held out")
    assert "chosen: last accuracy" in first
    assert (tmp_path / "grid.report.json").is_file()
    assert (tmp_path / "grid.best.toml").is_file()
