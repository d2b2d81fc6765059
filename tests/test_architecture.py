"""Imports point one way, start-up is light, and files keep to the house's sizes."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tosca_cache"
BASE = {
    "errors",
    "files",
    "processes",
    "seeds",
    "devices",
    "config",
    "torchvision_compat",
    "workers",
    "terminal",
    "bars",
    "shown",
    "plots",
    "feature_map",
    "names",
    "text",
}
STAGE_TWO = {"store", "class_order", "tasks", "luca", "train", "closed_form", "routing", "evaluate", "learners"}
ALLOWED = {
    "text": set(),
    "errors": {"text"},
    "files": {"errors"},
    "seeds": set(),
    "terminal": {"errors", "text"},
    "bars": {"text"},
    "shown": {"text"},
    "plots": {"errors"},
    "feature_map": {"errors", "plots"},
    "names": {"errors"},
    "processes": {"files"},
    "devices": {"errors"},
    "torchvision_compat": set(),
    "clusters": {"errors", "processes"},
    "workers": {"errors", "clusters", "processes"},
    "config": {"errors", "files", "text"},
    "datasets": BASE,
    "store": BASE | {"datasets"},
    "extract": BASE | {"datasets", "store"},
    "adapt": BASE | {"datasets", "store", "class_order", "extract"},
    "splits": {"devices", "errors", "store", "shown"},
    "class_order": {"errors", "seeds", "config", "splits"},
    "tasks": {"errors", "store", "splits", "class_order", "shown"},
    "luca": BASE | {"tasks"},
    "train": BASE | {"luca", "tasks"},
    "closed_form": {"devices", "seeds", "tasks"},
    "routing": BASE | {"luca", "tasks", "closed_form"},
    "evaluate": set(),
    "learners": BASE | {"train", "closed_form", "routing", "luca", "tasks", "evaluate"},
    "report": {"text"},
    "runs": BASE | STAGE_TWO | {"report", "extract"},
    "sweep": BASE | STAGE_TWO | {"runs"},
    "compare": BASE | STAGE_TWO | {"runs", "sweep", "extract", "datasets"},
    "model": BASE | STAGE_TWO | {"extract", "datasets", "runs"},
    "sklearn": {"errors", "model"},
    "plugins": {"errors", "learners", "routing"},
    "arguments": {"errors", "config", "text", "runs", "store", "tasks"},
    "api": BASE | STAGE_TWO | {"runs", "arguments", "api_searches"},
    "api_searches": BASE | STAGE_TWO | {"runs", "sweep", "compare", "report", "arguments"},
    "cli": BASE
    | STAGE_TWO
    | {"runs", "report", "extract", "datasets", "sweep", "compare", "plugins", "model", "adapt"},
}


def imports(path):
    """Rooms of the package, and top-level names of other packages, that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "tosca_cache":
                names = [f"tosca_cache.{alias.name}" for alias in node.names]
        yield from names


def rooms():
    return sorted(
        {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")} - {"__init__"}
    )


@pytest.mark.parametrize("room", rooms())
def test_imports_follow_the_arrows(room):
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else list((PACKAGE / room).rglob("*.py"))
    for path in files:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "tosca_cache" and len(parts) > 1 and parts[1] not in (room, "__version__"):
                assert parts[1] in ALLOWED[room], f"{path} imports {name}"
            assert not (room in ("store", "config", "evaluate") and parts[0] in ("torch", "timm")), (
                f"{path} imports {name}"
            )


@pytest.mark.parametrize(
    "code",
    [
        "import tosca_cache; tosca_cache.__version__; dir(tosca_cache)",
        "import tosca_cache.cli.app",
        "import tosca_cache.config",
    ],
)
def test_start_up_loads_no_heavy_library(code):
    heavy = ("torch", "fastapi", "pydantic", "timm", "torchvision", "sklearn", "matplotlib", "zarr", "numpy", "scipy")
    probe = f"{code}\nimport sys\nprint([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_functions_of_the_package_are_those_of_the_documentation():
    code = """
import tosca_cache.sweep.space, tosca_cache.compare, tosca_cache.evaluate  # rooms with the names of functions
import tosca_cache as tosca
from tosca_cache import api
assert set(api.__all__) | {"Model", "ToscaError", "__version__"} == set(tosca.__all__) <= set(dir(tosca))
assert all(getattr(tosca, name) is getattr(api, name) for name in api.__all__)
assert isinstance(tosca.__version__, str) and issubclass(tosca.ToscaError, Exception)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    text = (PACKAGE.parent / "docs" / "python.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"\btosca\.(\w+)\(", text)):
        assert name in api_names(), f"docs/python.md has tosca.{name}"


def api_names():
    (names,) = (
        node.value
        for node in ast.parse((PACKAGE / "api.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    return ast.literal_eval(names)


@pytest.mark.parametrize("room", ["compare", "evaluate", "runs", "sweep", "train"])
def test_files_of_rooms_that_have_a_functions_name_are_imported_as_any_other(room):
    (first, *_) = sorted(path.stem for path in (PACKAGE / room).glob("[a-z]*.py"))
    code = f"""
import tosca_cache.{room}.{first} as file
import tosca_cache as tosca
from tosca_cache import api
assert file.__name__ == tosca.{room}.{first}.__name__ == "tosca_cache.{room}.{first}"
assert tosca.{room} is api.{room}
"""
    exec(code, {})


def test_the_version_of_a_copy_that_is_not_installed(tmp_path):
    (tmp_path / "tosca_cache").mkdir()
    shutil.copy(PACKAGE / "__init__.py", tmp_path / "tosca_cache")
    # -S: no site-packages, so that nothing is installed.
    command = [sys.executable, "-S", "-c", "import tosca_cache; print(tosca_cache.__version__)"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert found.strip() == "0+unknown"


def test_what_the_documentation_names_is_public():
    docs = PACKAGE.parent / "docs"
    for path in [PACKAGE.parent / "README.md", *docs.rglob("*.md"), *docs.rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r"from (tosca_cache(?:\.\w+)+) import (\w+(?:, \w+)*)", text)
        named = [(module, name) for module, names in imported for name in names.split(", ")]
        named += re.findall(r"`(tosca_cache(?:\.[a-z_]+)+)\.(\w+)[`(]", text)
        for module, name in named:
            if (PACKAGE.parent / module.replace(".", "/") / f"{name}.py").exists():
                assert importlib.import_module(f"{module}.{name}").__all__
            else:
                assert name in importlib.import_module(module).__all__, f"{path.name} has {module}.{name}"


def test_store_needs_no_torch():
    probe = "import sys\nsys.modules['torch'] = None\nimport tosca_cache.store, tosca_cache.cli.cache"
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_no_pickle():
    for path in PACKAGE.rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {
            "pickle",
            "dill",
            "cloudpickle",
            "shelve",
            "marshal",
        }
        assert "allow_pickle=True" not in path.read_text(encoding="utf-8")
        assert "weights_only=False" not in path.read_text(encoding="utf-8")
