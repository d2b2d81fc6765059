"""The sdist and the wheel that is built from it, installed alone and used from an empty folder, without a compiler."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BESIDE = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt")
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", *BESIDE, "tosca_cache", "configs")
SDIST = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.toml"))
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*command, cwd, **environment):
    """What a command prints, warnings included; a failure shows it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name != "CXX"}
    how = {"env": clean | environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([str(part) for part in command], cwd=cwd, check=False, **how)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist, built in a copy so that nothing is left in the checkout; needs no network."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("sdist")
    for source in (ROOT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    run(sys.executable, "-c", SDIST, out, cwd=copy)
    return next(out.glob("tosca_cache-*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built from what the sdist holds."""
    out = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", out, sdist, cwd=out)
    return next(out.glob("tosca_cache-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of a clean environment that holds the wheel and sees the libraries of this one."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(home, symlinks=True)
    run(*PIP, "--python", home / "bin" / "python", "install", "--no-deps", "--no-index", wheel, cwd=home)
    # A path in a .pth file is searched, but its own .pth files are not run: an editable install of this checkout in the
    # current environment stays out of sight.
    paths = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    site = next((home / "lib").glob("python*")) / "site-packages"
    (site / "libraries.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
    return home / "bin"


def test_the_sdist_and_the_wheel_hold_every_file_and_no_leftovers(sdist, wheel):
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {*BESIDE, "pyproject.toml", "setup.py", "configs/cub.toml", "tosca_cache/py.typed"} <= names
    assert not [name for name in names if name.endswith(".pyc")]
    package = {path for path in (ROOT / "tosca_cache").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    configs = {f"tosca_cache/configs/{name}" for name in CONFIGS}
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files == {path.relative_to(ROOT).as_posix() for path in package} | configs and CONFIGS


def test_named_configs_and_the_version_after_installation(installed, tmp_path):
    code = (
        "import tosca_cache\n"
        "from tosca_cache.config import resolve, shipped_configs\n"
        "print('file', tosca_cache.__file__)\n"
        "print('version', tosca_cache.__version__)\n"
        "print('origin', resolve(overrides={'dataset': 'cub'}).origin['increment'])\n"
        "for name in shipped_configs(): print(name, resolve(config=name).config.dataset)\n"
    )
    printed = run(installed / "python", "-c", code, cwd=tmp_path)
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert lines.pop("file").startswith(str(installed.parent)), "the wheel is used and not the checkout"
    assert lines.pop("version") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert lines.pop("origin") == "shipped configs/cub.toml"
    assert sorted(f"{name}.toml" for name in lines) == CONFIGS and lines["vtab_in_order"] == "vtab"


def test_the_example_without_a_compiler(installed, tmp_path):
    nothing = {"PATH": str(installed), "TOSCA_KERNEL_CACHE": str(tmp_path / "kernels")}
    run(installed / "tosca", "extract", "--dataset", "digits", "--views", "1", cwd=tmp_path, **nothing)
    shown = run(installed / "tosca", "train", "--dataset", "digits", cwd=tmp_path, **nothing)
    assert "average accuracy" in shown
    assert shown.count("warning: training uses PyTorch; compiled kernels would make") == 1
    (trained,) = (tmp_path / "runs").iterdir()
    assert 'backbone = "vit_nano"' in (trained / "config.toml").read_text()
