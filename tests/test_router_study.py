"""The page on routers says what the committed measurements say, and every router is in the docs."""

import json
from pathlib import Path

import pytest

from tosca_cache.routing import ROUTERS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(benchmark_script):
    return benchmark_script("router_study")


@pytest.fixture
def studies(study):
    return [json.loads(path.read_text()) for path in sorted(study.FOLDER.glob("*.json"))]


def test_the_page_is_what_the_measurements_say(study, studies):
    page = (ROOT / "docs" / "router_study.md").read_text(encoding="utf-8")
    assert page.endswith("\n".join(study.tables(studies)) + "\n")


def test_every_router_is_in_the_docs():
    page = (ROOT / "docs" / "routers.md").read_text(encoding="utf-8")
    assert not [name for name in ROUTERS if f"`{name}`" not in page]
