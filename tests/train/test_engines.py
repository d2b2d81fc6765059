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


def test_few_steps_do_not_pay_for_compiling():
    assert choose_engine("auto", torch.device("cpu"), steps=PAYS - 1).name == "torch"
    assert choose_engine("auto", torch.device("cpu"), steps=PAYS).name == "native"
    assert choose_engine("torch", torch.device("cpu"), steps=10**9).name == "torch"


def test_the_native_engine_is_for_cpus():
    with pytest.raises(UsageError, match="trains on a CPU"):
        choose_engine("native", torch.device("meta"), steps=10**9)
    assert choose_engine("auto", torch.device("meta"), steps=10**9).name == "torch"


def test_without_a_compiler_pytorch_trains_with_one_warning(tmp_path):
    engine, problem, count, *messages = choose(tmp_path, PATH=str(tmp_path), CXX="")
    assert (engine, count) == ("torch", "1")
    assert "no C++ compiler" in messages[0]
    assert "no C++ compiler" in problem


def test_a_compiler_that_fails_is_quoted(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'out of licences' >&2\nexit 1\n")
    compiler.chmod(0o755)
    engine, problem, count, *messages = choose(tmp_path, CXX=str(compiler))
    assert (engine, count) == ("torch", "1")
    assert "out of licences" in " ".join(messages) and "set CXX to one that works" in problem
    assert not list((tmp_path / "kernels").glob("*.so"))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("#!/bin/sh\nexit 3\n", "exit status 3, without a word"),
        ("#!/bin/sh\nkill -9 $$\n", "ended by signal 9"),
        ("no program", "cannot be run: Exec format error"),
    ],
)
def test_a_compiler_that_is_none_is_named_with_what_became_of_it(tmp_path, monkeypatch, program, said):
    compiler = tmp_path / "c++"
    compiler.write_text(program)
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("TOSCA_KERNEL_CACHE", str(tmp_path / "kernels"))
    with pytest.raises(CannotCompileError) as raised:
        load_library.__wrapped__()  # what it found for other tests is kept
    assert str(compiler) in str(raised.value) and said in str(raised.value)


def test_a_folder_that_cannot_be_written_is_no_disaster(tmp_path):
    (tmp_path / "kernels").write_text("a file is in the way")
    engine, _, count, *messages = choose(tmp_path)
    assert (engine, count) == ("torch", "1")
    assert "kept or loaded" in messages[0]


def test_a_relative_folder_of_the_environment_does_not_count(tmp_path, monkeypatch):
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\nexec {find_compiler()} "$@" -O0\n')  # quickly
    compiler.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOSCA_KERNEL_CACHE", raising=False)
    for name, value in (("XDG_CACHE_HOME", "here"), ("HOME", str(tmp_path / "home")), ("CXX", str(compiler))):
        monkeypatch.setenv(name, value)
    load_library.__wrapped__()
    assert len(list((tmp_path / "home" / ".cache" / "tosca_cache").iterdir())) == 1 and not (tmp_path / "here").exists()


def test_two_processes_may_compile_at_once_a_third_finds_it_done_and_a_cut_library_is_made_again(tmp_path):
    compiler, kernels = tmp_path / "c++", tmp_path / "kernels"
    compiler.write_text(f'#!/bin/sh\nexec {find_compiler()} "$@" -O0\n')  # quickly
    compiler.chmod(0o755)
    env = os.environ | {"TOSCA_KERNEL_CACHE": str(kernels), "CXX": str(compiler)}
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
