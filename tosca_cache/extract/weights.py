"""Weights of a backbone: from a local file, without pickle's freedom and complete, or published ones within reach."""

from __future__ import annotations

import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tosca_cache.errors import BackboneError
from tosca_cache.torchvision_compat import ensure_torchvision

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
TIMEOUT = 4.0  # seconds until who does not answer counts as out of reach
SAVE = "save its tensors alone: torch.save(model.state_dict(), FILE), or as safetensors"
Tensors = Mapping[str, torch.Tensor]


def load_weights_file(model: torch.nn.Module, path: Path) -> None:
    """Puts the weights of a file into a timm model without head.

    The architecture's own filter of timm is applied, which resamples a position embedding of another size; keys of the
    classifier are dropped.

    Raises `BackboneError`: the file cannot be read, or its keys or shapes are not those of the model.
    """
    state = read_state_dict(path)
    adapt: Any = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    remedy = "give the --backbone, and the --img-size, that the weights belong to"
    with backbone_errors("the weights do not fit the model", path, remedy):
        state = state if adapt is None else adapt(state, model)
    classifier: Any = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    expected = model.state_dict()
    state = {k: v for k, v in state.items() if k in expected or not k.startswith(heads)}
    if wrong := tensor_problems(expected, state):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise BackboneError(
            f"the weights do not fit the model: {', '.join(wrong[:3])}{more}", where=path, remedy=remedy
        )
    model.load_state_dict(state)


def tensor_problems(expected: Tensors, given: Tensors) -> list[str]:
    """What is wrong with tensors that are to take the place of others: names and shapes."""
    wrong = [f"{name} is missing" for name in expected if name not in given]
    wrong += [f"{name} is unknown" for name in given if name not in expected]
    return wrong + [
        f"{name} is {list(given[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file or of a torch checkpoint (tensors only, no code), by name.

    Raises `BackboneError`: there is no such file, it is damaged, or it holds anything but weights.
    """
    if path.suffix not in SUFFIXES or not path.is_file():
        problem = "there is no such weights file" if path.suffix in SUFFIXES else "unknown kind of weights file"
        raise BackboneError(problem, where=path, remedy=f"give a file that ends in {', '.join(SUFFIXES)}")
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
        raise BackboneError("the file holds no weights", where=path, remedy="give a file with a state dict")
    return tensors


def _unreadable(path: Path, reason: str) -> BackboneError:
    """The error for a file that cannot be read, with how it begins: the libraries' own words mislead."""
    try:
        with path.open("rb") as file:
            begin = file.read(40)
    except OSError as error:
        problem = f"the weights file cannot be opened: {error.strerror}"
        return BackboneError(problem, where=path, remedy="check its permissions")
    named = re.search(r"globals?: *(?:GLOBAL )?([\w.]+\w)", reason)
    if begin.startswith(b"\x80") or (begin.startswith(b"PK") and ("weights_only" in reason or named)):
        objects = f" ({named[1]})" if named else ""
        problem = f"the file holds Python objects{objects} besides tensors, which could run code"
        return BackboneError(problem, where=path, remedy=SAVE)
    problem = f"this weights file is damaged, or of another kind: it begins with {begin!r}"
    return BackboneError(problem, where=path, remedy=f"give a whole file of one of {', '.join(SUFFIXES)}")


@contextmanager
def backbone_errors(problem: str, where: object, remedy: str) -> Iterator[None]:
    """Within it, what timm raises (a failed download, an unknown tag, an impossible size) is a `BackboneError`."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, AssertionError, LookupError, AttributeError) as error:
        reason = str(error).strip().splitlines()
        raise BackboneError(
            f"{problem}: {reason[0] if reason else type(error).__name__}", where=str(where), remedy=remedy
        ) from error


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
            remedy="fetch them where there is a network (tosca fetch --weights), or give a file: --weights FILE",
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
