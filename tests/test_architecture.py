"""Imports point one way, start-up is light, and what the documentation names is public."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tosca_cache"
BASE = "errors files processes seeds devices config torchvision_compat workers terminal bars shown plots names text"
BASE += " feature_map"
STAGE_TWO = f"{BASE} store class_order tasks luca train closed_form routing evaluate learners"
ALLOWED = {  # room: those that it may import
    "text": "",
    "errors": "text",
    "files": "errors",
    "seeds": "",
    "terminal": "errors text",
    "bars": "text",
    "shown": "text",
    "plots": "errors",
    "feature_map": "errors plots",
    "names": "errors",
    "processes": "files",
    "devices": "errors",
    "torchvision_compat": "",
    "clusters": "errors processes",
    "workers": "errors clusters processes",
    "config": "errors files text",
    "datasets": BASE,
    "store": f"{BASE} datasets",
    "extract": f"{BASE} datasets store",
    "adapt": f"{BASE} datasets store class_order extract",
    "splits": "devices errors store shown",
    "class_order": "errors seeds config splits",
    "tasks": "config errors store splits class_order shown",
    "luca": f"{BASE} tasks",
    "train": f"{BASE} luca tasks",
    "closed_form": "devices seeds tasks",
    "routing": f"{BASE} luca tasks closed_form",
    "evaluate": "",
    "learners": f"{BASE} train closed_form routing luca tasks evaluate",
    "report": "text",
    "runs": f"{STAGE_TWO} report extract",
    "sweep": f"{STAGE_TWO} runs",
    "compare": f"{STAGE_TWO} runs sweep extract datasets",
    "model": f"{STAGE_TWO} extract datasets runs",
    "sklearn": "errors model",
    "plugins": "errors learners routing",
    "arguments": "errors config text runs store tasks",
    "api": f"{STAGE_TWO} runs arguments api_searches",
    "api_searches": f"{STAGE_TWO} runs sweep compare report arguments",
    "cli": f"{STAGE_TWO} runs report extract datasets sweep compare plugins model adapt",
}


def imports(path):
    """Modules that a file imports anywhere; of `from tosca_cache import room`, the room."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "tosca_cache":
            yield from (f"tosca_cache.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("room", sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}))
def test_imports_follow_the_arrows_and_nothing_is_pickled(room):
    allowed = {room, "__version__", *ALLOWED[room].split()}
    forbidden = {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
    forbidden |= {"torch", "timm"} if room in ("store", "config", "evaluate") else set()
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") == room:
            for name in imports(path):
                first, _, rest = name.partition(".")
                assert first != "tosca_cache" or not rest or rest.split(".")[0] in allowed, f"{path} imports {name}"
                assert first not in forbidden, f"{path} imports {name}"
            text = path.read_text(encoding="utf-8")
            assert "allow_pickle=True" not in text and "weights_only=False" not in text, path


HEAVY = ("torch", "fastapi", "pydantic", "timm", "torchvision", "sklearn", "matplotlib", "zarr", "numpy", "scipy")


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import tosca_cache; tosca_cache.__version__; dir(tosca_cache)", HEAVY),
        ("import tosca_cache.cli.app", HEAVY),
        ("import tosca_cache.config", HEAVY),
        ("import tosca_cache.store, tosca_cache.cli.cache", ("torch", "timm")),
    ],
)
def test_start_up_loads_no_heavy_library(code, heavy):
    probe = f"{code}\nimport sys\nprint([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_functions_of_the_package_stay_functions_when_a_room_of_their_name_is_imported():
    code = """
import tosca_cache.sweep.space, tosca_cache.compare.cells, tosca_cache.evaluate.audit, tosca_cache.train.loop
import tosca_cache as tosca
from importlib import import_module
from tosca_cache import api
assert {*api.__all__, "Model", "ToscaError", "__version__"} == set(tosca.__all__) <= set(dir(tosca))
assert all(getattr(tosca, name) is getattr(api, name) for name in api.__all__)
for room, file in ("sweep", "space"), ("compare", "cells"), ("evaluate", "audit"), ("runs", "train"), ("train", "loop"):
    assert import_module(f"tosca_cache.{room}.{file}") is getattr(getattr(tosca, room), file)
    assert getattr(tosca, room) is getattr(api, room)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_version_of_a_copy_that_is_not_installed(tmp_path):
    (tmp_path / "tosca_cache").mkdir()
    shutil.copy(PACKAGE / "__init__.py", tmp_path / "tosca_cache")
    # -S: no site-packages, so that nothing is installed.
    command = [sys.executable, "-S", "-c", "import tosca_cache; print(tosca_cache.__version__)"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout == b"0+unknown\n"


def test_what_the_documentation_names_is_public():
    docs = PACKAGE.parent / "docs"
    for path in [PACKAGE.parent / "README.md", *docs.rglob("*.md"), *docs.rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r"from (tosca_cache(?:\.\w+)+) import (\w+(?:, \w+)*)", text)
        named = [(module, name) for module, names in imported for name in names.split(", ")]
        named += re.findall(r"`(tosca_cache(?:\.[a-z_]+)+)\.(\w+)[`(]", text)
        named += [("tosca_cache.api", name) for name in re.findall(r"\btosca\.([a-z_]\w+)\(", text)]
        for module, name in named:
            if (PACKAGE.parent / module.replace(".", "/") / f"{name}.py").exists():
                assert importlib.import_module(f"{module}.{name}").__all__
            else:
                assert name in importlib.import_module(module).__all__, f"{path.name} has {module}.{name}"
