"""Weights of a backbone: from a local file, read without pickle's freedom and complete, or published ones within reach."""

from __future__ import annotations

import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tosca_cache.errors import BackboneError
from tosca_cache.torchvision_compat import ensure_torchvision

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
TIMEOUT = 4.0  # seconds until who does not answer counts as out of reach
SAVE = "save its tensors alone: torch.save(model.state_dict(), FILE), or as safetensors"
_KINDS = (  # how files begin that are no weights, what they are, and what to do
    (b"version https://git-lfs", "a pointer of Git LFS, not the file of weights itself", "run `git lfs pull`"),
    (b"<", "a page of the web", "download the file itself"),
    (b"PK\x03\x04", "damaged, or a torch checkpoint under another suffix", "copy it again, or rename it to .pt"),
    (b"\x80", "a Python pickle, which could run any code, and no torch checkpoint", SAVE),
)
StateDict = dict[str, torch.Tensor]


def load_weights_file(model: torch.nn.Module, path: Path) -> None:
    """Puts the weights of a file into a timm model without head.

    The architecture's own filter of timm is applied, which resamples a position embedding of another size; keys of the
    classifier are dropped.

    Raises:
        BackboneError: the file cannot be read, or its keys or shapes are not those of the model.
    """
    state = _without_head(_adapted(read_state_dict(path), model, path), model)
    expected = model.state_dict()
    problems = {
        "lack": [key for key in expected if key not in state],
        "have the unknown": [key for key in state if key not in expected],
    }
    if any(problems.values()):
        parts = [f"{verb} {_first(keys, 3)}" for verb, keys in problems.items() if keys]
        problem = f"the weights do not belong to this model: they {' and '.join(parts)}"
        raise _refused(path, problem, "give the --backbone that the weights belong to")
    wrong = [
        f"{key} is {list(state[key].shape)}, not {list(tensor.shape)}"
        for key, tensor in expected.items()
        if state[key].shape != tensor.shape
    ]
    if wrong:
        problem = f"the weights have other shapes than the model: {_first(wrong, 1)}"
        raise _refused(path, problem, "give the --backbone and the --img-size that the weights belong to")
    model.load_state_dict(state)


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a safetensors file or of a torch checkpoint (tensors only, no code), by name.

    Raises:
        BackboneError: there is no such file, it is damaged, or it holds anything but weights.
    """
    if path.suffix not in SUFFIXES or not path.is_file():
        problem = "there is no such weights file" if path.suffix in SUFFIXES else "unknown kind of weights file"
        raise _refused(path, problem, f"give a file that ends in {', '.join(SUFFIXES)}")
    ensure_torchvision()
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), use_ema=False, weights_only=True)
    except AttributeError:  # it holds a list, or a text
        state = {}
    except Exception as error:  # whatever a broken file makes of three libraries
        raise _unreadable(path, str(error) or type(error).__name__) from error
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise _refused(path, "the file holds no weights", "give a file with a state dict")
    return tensors


def _unreadable(path: Path, reason: str) -> BackboneError:
    """The error for a file that cannot be read; the libraries' own words mislead where it is of another kind."""
    try:
        with path.open("rb") as file:
            begin = file.read(64)
    except OSError as error:
        return _refused(path, f"the weights file cannot be opened: {error.strerror}", "check its permissions")
    named = re.search(r"globals?: *(?:GLOBAL )?([\w.]+\w)", reason)
    if begin.startswith(b"PK") and ("weights_only" in reason or named):
        objects = f" ({named[1]})" if named else ""
        problem = f"the checkpoint holds Python objects{objects} besides tensors, which could run code"
        return _refused(path, problem, SAVE)
    first = reason.splitlines()[0].partition(". ")[0][:200]
    unknown = (f"damaged, or of another kind: {first}", f"give a whole file of one of {', '.join(SUFFIXES)}")
    found = [(what, remedy) for start, what, remedy in _KINDS if begin.startswith(start)]
    what, remedy = [*found, unknown][0]
    return _refused(path, f"this weights file is {what}", remedy)


def _refused(path: Path, problem: str, remedy: str) -> BackboneError:
    return BackboneError(problem, where=path, remedy=remedy)


def _adapted(state: StateDict, model: torch.nn.Module, path: Path) -> StateDict:
    """What the filter of the model's family in timm makes of it; families without one take the weights as they are."""
    adapt: Any = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    try:
        adapted: StateDict = adapt(state, model)
    except (RuntimeError, KeyError, ValueError, IndexError, AssertionError, AttributeError) as error:
        problem = f"the weights do not fit the model: {error}"
        raise _refused(path, problem, "give the --backbone they belong to") from error
    return adapted


def _without_head(state: StateDict, model: torch.nn.Module) -> StateDict:
    classifier: Any = getattr(model, "pretrained_cfg", {}).get("classifier") or ("head",)
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = model.state_dict().keys()
    return {k: v for k, v in state.items() if k in own or not k.startswith(tuple(f"{head}." for head in heads))}


def _first(words: list[str], shown: int) -> str:
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(words[:shown]) + more


@contextmanager
def weights_within_reach(name: str) -> Iterator[None]:
    """Within it, timm's model of that name (`arch.tag`) may be made with its weights.

    timm tries a download again for the better part of a minute, twice. So it is asked first whether the place answers; if
    it does not, nobody is asked, and weights that are on this machine are taken.

    Raises `BackboneError` if the weights are not here and their place does not answer.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    before = constants.HF_HUB_OFFLINE
    problem = "HF_HUB_OFFLINE is set" if before else _unreachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = problem is not None
    try:
        yield
    except BackboneError as error:
        if not isinstance(error.__cause__, LocalEntryNotFoundError):
            raise
        raise BackboneError(
            f"the weights of {name} are not on this machine, and {constants.ENDPOINT} does not answer: {problem}",
            where="--backbone",
            remedy="fetch them where there is a network (`tosca extract` keeps what it downloads), or give a file of them "
            "with --weights FILE",
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _unreachable(address: str) -> str | None:
    """Why nothing answers at an address within seconds; None if something does, whatever it says."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT):
            return None
    except urllib.error.HTTPError:
        return None  # an answer, if not a kind one: the download has more to say of it
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError) and not isinstance(reason, TimeoutError):
            return None  # somebody is there, whom the download may trust, if we do not
        return str(getattr(reason, "strerror", None) or reason)
