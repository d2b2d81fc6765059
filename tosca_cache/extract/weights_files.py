"""Weights from a local file, read without pickle's freedom and complete; and whether published ones can be had here."""

from __future__ import annotations

import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from tosca_cache.errors import BackboneError
from tosca_cache.torchvision_compat import ensure_torchvision

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
TIMEOUT = 4.0  # seconds of one attempt to connect
PATIENCE = 8.0  # seconds in all, as a name server may take its time without a word
SAVE = "save its tensors alone: torch.save(model.state_dict(), FILE), or as safetensors"
_TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # the zip of today, the magic number of before
_OTHERS = (  # how other files begin, what they are, and what to do
    (_TORCH, "a torch checkpoint under another suffix", "rename it to .pt"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file of weights itself", "run `git lfs pull`"),
    (b"\x80", "a Python pickle, which could run any code, and no torch checkpoint", SAVE),
    (b"<", "a page of the web", "download the file itself"),
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
        raise _refused(path, "the file holds no weights", "give a file with a state dict")
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
    if good:
        return
    text = begin.isascii() and begin.decode().split("\n")[0].isprintable()
    unknown = "empty" if not begin else "plain text" if text else "cut short, or of another kind"
    found = [(what, remedy) for start, what, remedy in _OTHERS if begin.startswith(start)]
    what, remedy = [*found, (unknown, f"give a whole file of one of {', '.join(SUFFIXES)}")][0]
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

    timm tries a download again for the better part of a minute, twice. So it is asked first whether anything answers where
    the weights are published; if nothing does, those that are on this machine are taken.

    Raises `BackboneError` if the weights are not here and their place does not answer.
    """
    from huggingface_hub import constants

    address, here = _published(name)
    problem = None if address is None else _unreachable(address)
    if address is None or problem is None:
        yield
        return
    if not here:
        raise BackboneError(
            f"the weights of {name} are not on this machine, and {urlsplit(address).netloc} does not answer: {problem}",
            where=address,
            remedy=f"fetch that file where there is a network, and give it with --weights {Path(address).name}",
        )
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True  # nobody is asked for something newer
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _published(name: str) -> tuple[str | None, bool]:
    """(address, whether it is on this machine) of the file that timm would take; no address for a place unknown to us."""
    from huggingface_hub import hf_hub_url, try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    try:
        config: Any = get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag, which making the model has words for
        return None, False
    if config is None or config.file or config.state_dict:
        return None, False
    if not config.hf_hub_id:
        kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(config.url or "").path).name
        return config.url or None, kept.is_file()
    repository, _, revision = config.hf_hub_id.partition("@")
    file = config.hf_hub_filename or "pytorch_model.bin"  # timm takes a safetensors file that is beside it
    files = (file.replace("pytorch_model.bin", "model.safetensors"), file)
    found = [try_to_load_from_cache(repository, name, revision=revision or None) for name in files]
    return hf_hub_url(repository, files[0], revision=revision or None), any(isinstance(path, str) for path in found)


def _unreachable(address: str) -> str | None:
    """Why nothing answers at an address within seconds; None if something does, whatever it says."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(_connect(address)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else f"no answer within {PATIENCE:g} seconds"


def _connect(address: str) -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT):
            return None
    except urllib.error.HTTPError:
        return None  # an answer, if not a kind one: the download has more to say of it
    except OSError as error:
        reason = getattr(error, "reason", error)
        if type(reason).__module__ == "ssl" and not isinstance(reason, TimeoutError):
            return None  # somebody is there, whom the download may trust, if we do not
        return str(getattr(reason, "strerror", None) or reason)
    except ValueError as error:
        return str(error)
