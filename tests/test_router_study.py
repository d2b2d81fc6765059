"""The page on routers says what the committed measurements say, and every router is in the docs."""

import importlib.util
import json
from pathlib import Path

import pytest

from tosca_cache.routing import ROUTERS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("router_study", ROOT / "benchmarks" / "router_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def studies(study):
    return [json.loads(path.read_text()) for path in sorted(study.FOLDER.glob("*.json"))]


def test_the_page_is_what_the_measurements_say(study, studies):
    page = (ROOT / "docs" / "router_study.md").read_text(encoding="utf-8")
    assert page.endswith("\n".join(study.tables(studies)) + "\n")


def test_every_router_is_in_the_docs():
    page = (ROOT / "docs" / "routers.md").read_text(encoding="utf-8")
    assert not [name for name in ROUTERS if f"`{name}`" not in page]
