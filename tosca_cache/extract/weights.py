"""Weights of a backbone: from a local file, without pickle's freedom and complete, or published ones, fetched ahead."""

from __future__ import annotations

import hashlib
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
from tosca_cache.extract.names import resolve_name
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
HUB = "hf-hub:"
FILES = ("model.safetensors", "pytorch_model.bin")  # of a repository, in the order in which timm takes them
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
    """The error for a file that cannot be read; the libraries' own words mislead where it is of another kind."""
    try:
        with path.open("rb") as file:
            begin = file.read(64)
    except OSError as error:
        problem = f"the weights file cannot be opened: {error.strerror}"
        return BackboneError(problem, where=path, remedy="check its permissions")
    named = re.search(r"globals?: *(?:GLOBAL )?([\w.]+\w)", reason)
    if begin.startswith(b"PK") and ("weights_only" in reason or named):
        objects = f" ({named[1]})" if named else ""
        problem = f"the checkpoint holds Python objects{objects} besides tensors, which could run code"
        return BackboneError(problem, where=path, remedy=SAVE)
    first = reason.splitlines()[0].partition(". ")[0][:200]
    unknown = (f"damaged, or of another kind: {first}", f"give a whole file of one of {', '.join(SUFFIXES)}")
    found = [(what, remedy) for start, what, remedy in _KINDS if begin.startswith(start)]
    what, remedy = [*found, unknown][0]
    return BackboneError(f"this weights file is {what}", where=path, remedy=remedy)


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


def fetch_weights(name: str) -> dict[str, Any]:
    """Downloads the weights of a model of timm (`arch.tag`) or of a repository of one (`hf-hub:OWNER/NAME[@REVISION]`).

    They lie where timm looks for them, so that `tosca extract --backbone arch.tag` needs no network afterwards.

    Returns name, arch and tag (as timm writes them), origin (repository and commit, or address), file, size (bytes) and
    sha256. Raises `BackboneError`: there is no such model, it has no weights, or they cannot be had (said within seconds).
    """
    ensure_torchvision()
    from timm.models._hub import download_cached_file, load_model_config_from_hf

    place, url = name.removeprefix(HUB), ""
    if not name.startswith(HUB):
        arch, tag, place, url = _published(name)
    elif not re.fullmatch(r"[^/@]+/[^/@]+(@[^@]+)?", place):
        raise BackboneError(
            "this is no repository", where=name, remedy=f"give {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION"
        )
    failed = backbone_errors(f"the weights of {name} cannot be had", name, "check the name, and the revision")
    with weights_within_reach(name), failed:
        if place:
            repo, _, revision = place.partition("@")
            file = _from_hub(repo, revision or None)
            origin = f"{repo}@{file.parent.name}"  # models--OWNER--NAME/snapshots/COMMIT/FILE
            if name.startswith(HUB):
                config, arch = load_model_config_from_hf(origin)[:2]
                tag = config.get("tag") or ""
        else:
            file, origin = Path(download_cached_file(url, check_hash=False)), url
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    found = {"name": name, "arch": arch, "tag": tag, "origin": origin, "file": str(file)}
    return found | {"size": file.stat().st_size, "sha256": sha256}


def _published(name: str) -> tuple[str, str, str, str]:
    """(arch, tag, repository with revision, address) of the weights that timm would load."""
    import timm

    arch, tag = resolve_name(name)
    full = f"{arch}.{tag}" if tag else arch
    config: Any = timm.models.get_pretrained_cfg(full) if timm.is_model(full) else None
    if config is None or not (config.hf_hub_id or config.url):
        problem = f"timm has no {'model' if config is None else 'weights for'} {full!r}"
        raise BackboneError(problem, where=name, remedy="give a name of timm.list_pretrained()")
    return arch, config.tag or tag, config.hf_hub_id or "", config.url or ""


def _from_hub(repo: str, revision: str | None) -> Path:
    """The weights of a repository: the first of `FILES` that it has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in FILES:
        try:
            return Path(hf_hub_download(repo, name, revision=revision, etag_timeout=5))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError) and name == FILES[-1]:
                raise
    raise ValueError(f"the repository {repo} has none of {', '.join(FILES)}")
