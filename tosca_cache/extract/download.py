"""Published weights: whether they are on this machine, and if not, whether the place they come from answers at all.

timm's downloads try again for the better part of a minute, twice, before they say that there is no network.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tosca_cache.errors import BackboneError

TIMEOUT = 4.0  # seconds of one attempt to connect
PATIENCE = 8.0  # seconds in all, as a name server may take its time without a word
HUB_FILE = "pytorch_model.bin"  # what timm asks for; where there is a safetensors file beside it, it takes that


@dataclass(frozen=True)
class Published:
    """Where the weights of a model are published. address: of the file. here: whether this machine has it."""

    address: str
    here: bool


@contextmanager
def weights_within_reach(name: str) -> Iterator[None]:
    """Within it, timm's model of that name (`arch.tag`) may be made with its weights.

    Weights that are here are taken from here if the network is not there.

    Raises `BackboneError` if the weights are not here and their place does not answer.
    """
    found = _published(name)
    problem = None if found is None else unreachable(found.address)
    if found is None or problem is None:
        yield
    elif found.here:
        with _offline():
            yield
    else:
        raise BackboneError(
            f"the weights of {name} are not on this machine, and {urlsplit(found.address).netloc} does not answer: "
            f"{problem}",
            where=found.address,
            remedy=f"fetch that file where there is a network, and give it with --weights {Path(found.address).name}",
        )


@contextmanager
def _offline() -> Iterator[None]:
    """Within it, huggingface_hub asks nobody whether there is something newer than what is here."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _published(name: str) -> Published | None:
    """Where timm would take the weights from; None if from nowhere, or from a place that we do not know."""
    from timm.models import get_pretrained_cfg

    try:
        config: Any = get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag, which making the model has words for
        return None
    if config is None or config.file or config.state_dict:
        return None
    if config.hf_hub_id:
        return _on_hub(config.hf_hub_id, config.hf_hub_filename)
    if config.url:
        import torch

        kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(config.url).path).name
        return Published(config.url, kept.is_file())
    return None


def _on_hub(repository: str, file: str | None) -> Published:
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    repository, _, revision = repository.partition("@")
    file = file or HUB_FILE
    files = (file.replace("pytorch_model.bin", "model.safetensors"), file)
    kept = [try_to_load_from_cache(repository, name, revision=revision or None) for name in files]
    address = hf_hub_url(repository, files[0], revision=revision or None)
    return Published(address, any(isinstance(path, str) for path in kept))


def unreachable(address: str) -> str | None:
    """Why nothing answers at an address within seconds; None if something does, whatever it says."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(_attempt(address)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else f"no answer within {PATIENCE:g} seconds"


def _attempt(address: str) -> str | None:
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
