"""The wheel: built from a copy of the checkout, installed alone into a clean environment, used from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "tosca_cache", "configs")
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.toml"))


def _run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command; a failure shows all that it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a copy so that no build folder is left in the checkout; needs no network."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for source in (ROOT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, copy)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", out, ".", cwd=copy)
    return next(out.glob("tosca_cache-*.whl"))


@dataclass(frozen=True)
class Installed:
    """A clean environment that holds the wheel and sees the libraries of this one, and an empty folder to work in."""

    bin: Path
    folder: Path

    def python(self, code: str) -> str:
        """Standard output of a piece of Python."""
        return _run(self.bin / "python", "-c", code, cwd=self.folder)

    def tosca(self, *arguments: str) -> str:
        """Standard output of `tosca ARGUMENTS`."""
        return _run(self.bin / "tosca", *arguments, cwd=self.folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(home, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", home / "bin" / "python")
    _run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home)
    # A path in a .pth file is searched, but its own .pth files are not run: an editable install of this checkout in the
    # current environment stays out of sight.
    paths = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    site = next((home / "lib").glob("python*")) / "site-packages"
    (site / "libraries.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
    return Installed(home / "bin", tmp_path_factory.mktemp("empty"))


def test_the_wheel_holds_every_file_and_config(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    package = {path for path in (ROOT / "tosca_cache").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    configs = {f"tosca_cache/configs/{name}" for name in CONFIGS}
    files = {name for name in held if ".dist-info/" not in name}
    assert files == {path.relative_to(ROOT).as_posix() for path in package} | configs
    assert CONFIGS


def test_the_wheel_is_used_and_not_the_checkout(installed: Installed) -> None:
    code = "import tosca_cache; print(tosca_cache.__file__)"
    assert installed.python(code).startswith(str(installed.bin.parent))


def test_named_configs_resolve_after_installation(installed: Installed) -> None:
    code = (
        "from tosca_cache.config import resolve, shipped_configs\n"
        "for name in shipped_configs(): print(name, resolve(config=name).config.dataset)\n"
    )
    lines = dict(line.split() for line in installed.python(code).splitlines())
    assert sorted(f"{name}.toml" for name in lines) == CONFIGS
    assert lines["vtab_in_order"] == "vtab"


def test_the_config_of_a_dataset_is_found_after_installation(installed: Installed) -> None:
    code = "from tosca_cache.config import resolve; print(resolve(overrides={'dataset': 'cub'}).origin['increment'])"
    assert installed.python(code).strip() == "shipped configs/cub.toml"


def test_train_with_a_named_config_after_installation(installed: Installed) -> None:
    installed.tosca("extract", "--dataset", "digits", "--views", "1")
    shown = installed.tosca("train", "--config", "digits", "--epochs", "2")
    assert "average accuracy" in shown
    (run,) = (installed.folder / "runs").iterdir()
    assert 'backbone = "vit_nano"' in (run / "config.toml").read_text()
