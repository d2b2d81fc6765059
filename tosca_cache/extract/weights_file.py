"""Weights from a local file: read without pickle's freedom, fitted to the model, and complete."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from tosca_cache.errors import BackboneError
from tosca_cache.torchvision_compat import ensure_torchvision

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
StateDict = dict[str, torch.Tensor]
SAVE = "save its tensors alone: torch.save(model.state_dict(), FILE), or as safetensors"
_TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # the zip of today, the magic number of before
_OTHERS = (  # how other files begin, what they are, and what to do
    (_TORCH, "a torch checkpoint under another suffix", "rename it to .pt"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file of weights itself", "run `git lfs pull`"),
    (b"\x80", "a Python pickle, which could run any code, and no torch checkpoint", SAVE),
    (b"<", "a page of the web", "download the file itself"),
)


def load_weights_file(model: torch.nn.Module, path: Path) -> None:
    """Puts the weights of a file into a timm model without head.

    The architecture's own filter of timm is applied, which resamples a position embedding of another size; keys of the
    classifier are dropped.

    Raises:
        BackboneError: the file cannot be read, or its keys or shapes are not those of the model.
    """
    state = _without_head(_adapted(read_state_dict(path), model, path), model)
    expected = model.state_dict()
    _check_keys(state, expected, path)
    wrong = [key for key in expected if state[key].shape != expected[key].shape]
    if wrong:
        shapes = f"{wrong[0]} is {list(state[wrong[0]].shape)}, not {list(expected[wrong[0]].shape)}"
        raise BackboneError(
            f"the weights have other shapes than the model: {shapes}{_more(wrong)}",
            where=path,
            remedy="give the --backbone and the --img-size that the weights belong to",
        )
    model.load_state_dict(state)


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a safetensors file or of a torch checkpoint (tensors only, no code), by name.

    Raises:
        BackboneError: there is no such file, it is damaged, or it holds anything but weights.
    """
    if path.suffix not in SUFFIXES or not path.is_file():
        problem = "there is no such weights file" if path.suffix in SUFFIXES else "unknown kind of weights file"
        raise BackboneError(problem, where=path, remedy=f"give a file that ends in {', '.join(SUFFIXES)}")
    _check_kind(path)
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


def _check_kind(path: Path) -> None:
    """Raises `BackboneError` for a file that begins like something else: the libraries' words mislead then."""
    try:
        with path.open("rb") as file:
            begin, size = file.read(64), path.stat().st_size
    except OSError as error:
        raise _refused(path, f"the weights file cannot be opened: {error.strerror}", "check its permissions") from error
    if path.suffix == ".safetensors":
        good = begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") <= size - 8
    else:
        good = begin.startswith(_TORCH)
    if not good:
        found = [(what, remedy) for start, what, remedy in _OTHERS if begin.startswith(start)]
        text = (
            "plain text"
            if begin.isascii() and begin.decode().split("\n")[0].isprintable()
            else "cut short, or of another kind"
        )
        what, remedy = [*found, (text if begin else "empty", f"give a whole file of one of {', '.join(SUFFIXES)}")][0]
        raise _refused(path, f"this weights file is {what}", remedy)


def _unreadable(path: Path, reason: str) -> BackboneError:
    """The error for a file of the right kind that cannot be read after all."""
    if "weights_only" in reason or "nsupported global" in reason:
        named = re.search(r"globals?: *(?:GLOBAL )?([\w.]+\w)", reason)
        objects = f" ({named[1]})" if named else ""
        return _refused(
            path, f"the checkpoint holds Python objects{objects} besides tensors, which could run code", SAVE
        )
    first = reason.splitlines()[0].partition(". ")[0]
    return _refused(path, f"the weights file is damaged: {first[:200]}", "copy or download it again")


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
        raise BackboneError(
            f"the weights do not fit the model: {error}", where=path, remedy="give the --backbone they belong to"
        ) from error
    return adapted


def _without_head(state: StateDict, model: torch.nn.Module) -> StateDict:
    classifier: Any = getattr(model, "pretrained_cfg", {}).get("classifier") or ("head",)
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = model.state_dict().keys()
    return {k: v for k, v in state.items() if k in own or not k.startswith(tuple(f"{head}." for head in heads))}


def _check_keys(state: Collection[str], expected: Collection[str], path: Path) -> None:
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if not missing and not unexpected:
        return
    lists = (("lack", missing), ("have the unknown", unexpected))
    parts = [f"{verb} {', '.join(keys[:3])}{_more(keys, 3)}" for verb, keys in lists if keys]
    raise BackboneError(
        f"the weights do not belong to this model: they {' and '.join(parts)}",
        where=path,
        remedy="give the --backbone that the weights belong to",
    )


def _more(keys: list[str], shown: int = 1) -> str:
    return f" and {len(keys) - shown} more" if len(keys) > shown else ""
