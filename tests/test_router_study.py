"""The page on the default router says what the committed measurements say, and the default is what its rule chooses."""

import importlib.util
import json
from pathlib import Path

import pytest

from tosca_cache.routing import ROUTERS
from tosca_cache.routing.auto import Auto

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


def test_the_default_is_what_the_rule_chooses(study, studies):
    assert len(studies) == 4
    held = study.columns(studies, "val")
    assert len(held) == 8
    chosen = max(study.eligible(), key=lambda name: sum(column[name][0] for column in held.values()))
    assert issubclass(Auto, ROUTERS[chosen])


def test_every_router_is_in_the_docs():
    page = (ROOT / "docs" / "routers.md").read_text(encoding="utf-8")
    assert not [name for name in ROUTERS if f"`{name}`" not in page]
