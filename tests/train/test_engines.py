"""The choice of what trains: compiled kernels where they pay and can be had, PyTorch otherwise, with one warning."""

import os
import subprocess
import sys

import pytest
import torch

from tosca_cache.errors import UsageError
from tosca_cache.train.engines import PAYS, choose_engine
from tosca_cache.train.native.library import CannotCompileError, find_compiler, load_library

CHOOSE = """
import sys, torch, warnings
from tosca_cache.errors import ToscaError
from tosca_cache.train.engines import choose_engine
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        names = [choose_engine("auto", torch.device("cpu"), steps=10**6).name for _ in range(3)]
        choose_engine("native", torch.device("cpu"), steps=10**6)
    except ToscaError as error:
        names.append(f"{error.problem} {error.remedy}")
print(names[0], names[-1].replace("\\n", " "), len(caught), *(str(w.message) for w in caught), sep="\\n")
"""


def choose(tmp_path, **environment):
    """What `auto` takes, why `native` is refused, the number of warnings, and the warnings, in a process of its own."""
    env = os.environ | {"TOSCA_KERNEL_CACHE": str(tmp_path / "kernels")} | environment
    result = subprocess.run([sys.executable, "-c", CHOOSE], env=env, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def program(path, text):
    """A program at a path, as text."""
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def quick_compiler(folder):
    return program(folder / "c++", f'#!/bin/sh\nexec {find_compiler()} "$@" -O0\n')


def test_few_steps_do_not_pay_for_compiling_and_the_native_engine_is_for_cpus():
    cpu, meta = torch.device("cpu"), torch.device("meta")
    for asked, device, steps, name in (
        *(("auto", cpu, PAYS - 1, "torch"), ("auto", cpu, PAYS, "native")),
        *(("torch", cpu, 10**9, "torch"), ("auto", meta, 10**9, "torch")),
    ):
        assert choose_engine(asked, device, steps=steps).name == name
    with pytest.raises(UsageError, match="trains on a CPU"):
        choose_engine("native", meta, steps=10**9)


def test_without_a_compiler_or_a_folder_pytorch_trains_with_one_warning(tmp_path):
    engine, problem, count, *messages = choose(tmp_path, PATH=str(tmp_path), CXX="")
    assert (engine, count) == ("torch", "1")
    assert "no C++ compiler" in messages[0] and "no C++ compiler" in problem
    assert "set CXX to one that works" in problem
    (tmp_path / "file").write_text("in the way")
    engine, _, count, *messages = choose(tmp_path, TOSCA_KERNEL_CACHE=str(tmp_path / "file"))
    assert (engine, count) == ("torch", "1") and "kept or loaded" in messages[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho 'out of licences' >&2\nexit 1\n", "out of licences"),
        ("#!/bin/sh\nexit 3\n", "exit status 3, without a word"),
        ("#!/bin/sh\nkill -9 $$\n", "ended by signal 9"),
        ("no program", "cannot be run: Exec format error"),
    ],
)
def test_a_compiler_that_is_none_is_named_with_what_became_of_it(tmp_path, monkeypatch, text, said):
    compiler = program(tmp_path / "c++", text)
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("TOSCA_KERNEL_CACHE", str(tmp_path / "kernels"))
    with pytest.raises(CannotCompileError) as raised:
        load_library.__wrapped__()  # what it found for other tests is kept
    assert compiler in str(raised.value) and said in str(raised.value)
    assert not list((tmp_path / "kernels").glob("*.so"))


def test_a_relative_folder_of_the_environment_does_not_count(tmp_path, monkeypatch):
    compiler, home = quick_compiler(tmp_path), tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOSCA_KERNEL_CACHE", raising=False)
    for name, value in (("XDG_CACHE_HOME", "here"), ("HOME", str(home)), ("CXX", compiler)):
        monkeypatch.setenv(name, value)
    load_library.__wrapped__()
    assert len(list((home / ".cache" / "tosca_cache").iterdir())) == 1 and not (tmp_path / "here").exists()


def test_two_processes_may_compile_at_once_a_third_finds_it_done_and_a_cut_library_is_made_again(tmp_path):
    kernels = tmp_path / "kernels"
    env = os.environ | {"TOSCA_KERNEL_CACHE": str(kernels), "CXX": quick_compiler(tmp_path)}
    code = "from tosca_cache.train.native.library import load_library; print(load_library().seconds > 0)"

    def start():
        return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)

    both = [start(), start()]
    assert "True\n" in [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    (library,) = kernels.iterdir()
    assert start().communicate()[0] == "False\n"
    whole = library.read_bytes()
    os.truncate(library, 1000)
    again = start()
    assert (again.communicate()[0], again.returncode) == ("True\n", 0)
    assert [path.read_bytes() for path in kernels.iterdir()] == [whole]
