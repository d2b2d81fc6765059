"""Requests that cannot be: each is one message with what is wrong and what to do, and leaves nothing behind."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import tosca

from tosca_cache.store import list_stores

# What is typed before the words of a case, by its first word.
BEFORE = {
    "digits": "extract --dataset digits --backbone test_vit --weights {weights} --img-size 32 --root new",
    "folder": "extract --dataset photos --backbone test_vit --weights {weights} --img-size 32 --root new",
    "nano": "extract --dataset digits --root new",
    "compare": "compare --dataset digits --methods",
    "sweep": "sweep --dataset digits --set epochs=2 --report-seeds 1,2",
    "reproduce": "reproduce",
    "import": "cache import pixels.npz --root new",
    "tosca": "",
}
# Command | exit status | words of the message.
CASES = """
digits --dataset digit | 2 | digits
digits --dataset ./nowhere | 1 | ./nowhere | does not exist
digits --dataset cub --data-root elsewhere | 1 | elsewhere/cub | 9430 | train/CLASS | RevisitingCIL
digits --views -1 | 2 | --views
digits --precision int4 | 2 | --precision | bf16
digits --img-size 33 | 1 | --img-size | 16
digits --backbone vit_unknown | 1 | --backbone
digits --weights nowhere.pth | 1 | nowhere.pth
digits --background black | 2 | --background | no files
digits --duplicates drop | 2 | --duplicates | digits
digits --part 0/4 | 2 | --part | i from 1 to n
digits --jobs 100000 | 2 | --jobs 100000 would start 100000 processes | give at most
folder --orientation sideways | 2 | --orientation | upright, stored
folder --background pinkish | 2 | --background | 'pinkish'
folder --duplicates ask | 2 | --duplicates | keep, drop, fail
nano --views 1000000 | 2 | less than or equal to 65535
nano --test-views 70000 | 2 | --test-views cannot be 70000
nano --batch-size 1000000000000 | 2 | views of 32 pixels take
nano --device meta | 2 | device 'meta' is not available
compare simplcil | 2 | did you mean 'simplecil'?
compare simplecil --set teen.alpha=1 | 2 | 'teen' is not among the methods compared
compare teen --set teen.alfa=1 | 2 | did you mean 'alpha'?
compare teen --set teen.alpha=much | 2 | valid number
compare ranpac --set ranpac.expansion=-5 | 2 | It should be greater than or equal to 1
compare simplecil --set simplecil.k=1 | 2 | it has none
compare teen --set alpha=1 | 2 | write it as --set METHOD.OPTION=VALUE
compare simplecil --seeds 0 | 2 | give a count of 1 or more
compare simplecil --increment 11 | 2 | increment is 11
compare tosca --router x | 2 | unknown router
compare simplecil --plugin none.py | 2 | there is no such file
sweep --set seeds=1,2 | 2 | --seeds
sweep --set lr=log:0.01:0.1 | 2 | lr=log:0.01:0.1:5 | random or tpe
sweep --sampler random --set lr=log:0.01:0.1 | 2 | --trials
sweep --set increment=2,11 | 2 | increment is 11 | 10 classes
sweep --metric accuracy | 2 | --metric | last_accuracy
sweep --select validation | 2 | --select | val
sweep --report-seeds 1,1 | 2 | --report-seeds | different
sweep --select two-phase --set increment=6 | 2 | two-phase | smaller increment
sweep --store nowhere | 1 | nowhere | tosca extract
sweep --dataset digit | 1 | tosca extract --dataset digit
sweep --backend slurm | 2 | --backend | loky, dask, ray
sweep --scheduler tcp://here:1 | 2 | --scheduler | --backend dask
sweep --backend ray | 2 | --scheduler ADDRESS
sweep --jobs 0 | 2 | --jobs
sweep --ledger notes.txt | 1 | notes.txt | not a sweep ledger
sweep --ledger notes.txt/sweep.sqlite | 1 | notes.txt | --ledger
reproduce | 2 | give --paper or --expectation
reproduce --paper simplcil | 2 | did you mean 'simplecil'
reproduce --paper simplecil --dataset digits | 2 | choose of cifar100, cub
reproduce --expectation none.toml | 2 | cannot be read
reproduce --paper simplecil --dataset cub | 1 | files of cub are missing; wanted: train/CLASS | with --data-root
reproduce --which cub | 2 | --which cub=86.7
reproduce --expectation rampac.toml | 2 | the learner 'rampac', which is not registered
import | 2 | Missing option '--dataset'
import --dataset p --labels nope | 2 | there is no array 'nope'
import --dataset p --features a,b,c | 2 | there is no array
import --dataset ../p | 2 | is no name
tosca run | 2 | --dataset
tosca run --dataset digits --sweep --method slda | 2 | only tosca
tosca run --dataset http://127.0.0.1:9/ --plan | 2 | no name of an archive
tosca methods moss | 2 | did you mean 'mos'?
tosca route no-such-run | 1 | no run 'no-such-run'
tosca train --lr fast | 2 | --lr
tosca train --no-such-option | 2 | --no-such-option
tosca nonsense | 2 | nonsense
tosca train --dataset digits --runs '' | 2 | an argument is empty
tosca train --dataset= digits | 2 | an argument is empty
tosca cache info '' | 2 | an argument is empty
"""


RAMPAC = """
[[expectation]]
dataset = "digits"
method = "rampac"
increment = 2
backbone = "vit_nano"
normalize = "none"
image_size = 32
resize = 32
source = "nobody, table 0"
values = { last_accuracy = 90.0 }
"""
MINE = {"notes.txt", "rampac.toml", "pixels.npz"}


@pytest.fixture
def place(digits_place):
    """A working directory with a file and a folder of the user's."""
    Path("notes.txt").write_text("my notes")
    Path("photos/a").mkdir(parents=True)
    Path("rampac.toml").write_text(RAMPAC)
    pixels, rows = np.random.default_rng(0).normal(size=(40, 64)), np.arange(40)
    np.savez("pixels.npz", X=pixels.astype(np.float32), y=rows % 4, is_test=rows % 3 == 0)
    return digits_place


@pytest.mark.parametrize("case", CASES.strip().splitlines())
def test_wrong_requests_are_one_message_with_a_remedy(place, digits_cache, tiny_weights, case):
    typed, status, *words = (part.strip() for part in case.split(" | "))
    first, *rest = shlex.split(typed)
    (store,) = list_stores(digits_cache)
    command = " ".join([BEFORE[first], *map(shlex.quote, rest)]).replace("'{store}'", str(store.path))
    result = tosca(*shlex.split(command.format(weights=tiny_weights)), code=int(status))
    said = " ".join(result.output.split())
    assert all(word in said for word in words), said
    assert ("error: " in said.lower() or "╭─ Error" in said) and ("do: " in said or "Usage: " in said)
    left = {path.name for path in place.rglob("*") if path.is_file()}
    assert left <= MINE | {"digits-sweep.sqlite", "digits-compare.sqlite"} and not list_stores("new")
    assert Path("notes.txt").read_text() == "my notes"
