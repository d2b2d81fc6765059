"""The sdist and the wheel that is built from it, installed alone and used from an empty folder, without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BESIDE = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt")
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", *BESIDE, "tosca_cache", "configs")
SDIST = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.toml"))


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints, warnings included; a failure shows it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name != "CXX"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, built in a copy so that nothing is left in the checkout; needs no network."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("sdist")
    for source in (ROOT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    _run(sys.executable, "-c", SDIST, out, cwd=copy)
    return next(out.glob("tosca_cache-*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what the sdist holds."""
    out = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", out, sdist, cwd=out)
    return next(out.glob("tosca_cache-*.whl"))


@dataclass(frozen=True)
class Installed:
    """A clean environment that holds the wheel and sees the libraries of this one, and an empty folder to work in."""

    bin: Path
    folder: Path

    def python(self, code: str) -> str:
        """What a piece of Python prints."""
        return _run(self.bin / "python", "-c", code, cwd=self.folder)

    def tosca(self, *arguments: str) -> str:
        """What `tosca ARGUMENTS` prints where there is no compiler."""
        nothing = {"PATH": str(self.bin), "TOSCA_KERNEL_CACHE": str(self.folder / "kernels")}
        return _run(self.bin / "tosca", *arguments, cwd=self.folder, **nothing)


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


def test_the_sdist_holds_the_licence_and_no_leftovers(sdist: Path) -> None:
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {*BESIDE, "pyproject.toml", "setup.py", "configs/cub.toml", "tosca_cache/py.typed"} <= names
    assert not [name for name in names if name.endswith(".pyc")]


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


def test_named_configs_and_the_version_after_installation(installed: Installed) -> None:
    code = (
        "import tosca_cache\n"
        "from tosca_cache.config import resolve, shipped_configs\n"
        "print('version', tosca_cache.__version__)\n"
        "print('origin', resolve(overrides={'dataset': 'cub'}).origin['increment'])\n"
        "for name in shipped_configs(): print(name, resolve(config=name).config.dataset)\n"
    )
    lines = dict(line.split(maxsplit=1) for line in installed.python(code).splitlines())
    assert lines.pop("version") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert lines.pop("origin") == "shipped configs/cub.toml"
    assert sorted(f"{name}.toml" for name in lines) == CONFIGS
    assert lines["vtab_in_order"] == "vtab"


def test_the_example_without_a_compiler(installed: Installed) -> None:
    installed.tosca("extract", "--dataset", "digits", "--views", "1")
    shown = installed.tosca("train", "--dataset", "digits")
    assert "average accuracy" in shown
    assert shown.count("warning: training uses PyTorch; compiled kernels would make") == 1
    (run,) = (installed.folder / "runs").iterdir()
    assert 'backbone = "vit_nano"' in (run / "config.toml").read_text()
