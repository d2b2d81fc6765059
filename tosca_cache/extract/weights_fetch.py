"""Getting the weights of a backbone ahead of time, and saying exactly which they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tosca_cache.errors import BackboneError
from tosca_cache.extract.names import VIT_NANO, resolve_name
from tosca_cache.extract.weights_files import weights_within_reach
from tosca_cache.files import strict_json
from tosca_cache.torchvision_compat import ensure_torchvision

T = TypeVar("T")
HUB = "hf-hub:"
FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which timm takes them


@dataclass(frozen=True)
class FetchedWeights:
    """Weights on this machine.

    name: as asked for. arch, tag: what it stands for, as timm writes it. origin: repository and commit, or address.
    file: in the cache that timm reads. size: bytes. sha256: of the file.
    """

    name: str
    arch: str
    tag: str
    origin: str
    file: Path
    size: int
    sha256: str

    def to_record(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self) | {"file": str(self.file)}


def fetch_weights(name: str) -> FetchedWeights:
    """Downloads the weights of a model of timm (`arch.tag`) or of a repository (`hf-hub:OWNER/NAME[@REVISION]`).

    They lie where timm looks for them, so that `tosca extract --backbone arch.tag` needs no network afterwards.

    Raises `BackboneError`: there is no such model, it has no weights, or they cannot be had (said within seconds).
    """
    ensure_torchvision()
    arch, tag, repo, revision, url = _hub(name) if name.startswith(HUB) else _timm(name)
    with weights_within_reach(name):
        if repo:
            file, commit = _attempt(lambda: _from_hub(repo, revision), name)
            origin = f"{repo}@{commit}"
            if name.startswith(HUB):
                arch, tag = _attempt(lambda: _described(repo, commit), name)
        else:
            file, origin = _attempt(lambda: _from_address(url), name), url
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return FetchedWeights(name, arch, tag, origin, file, file.stat().st_size, sha256)


def _hub(name: str) -> tuple[str, str, str, str | None, str]:
    repo, _, revision = name.removeprefix(HUB).partition("@")
    if repo.count("/") != 1 or repo.startswith("/") or repo.endswith("/"):
        raise BackboneError(
            "this is no repository", where=name, remedy=f"give {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION"
        )
    return "", "", repo, revision or None, ""


def _timm(name: str) -> tuple[str, str, str, str | None, str]:
    """(arch, tag, repository, revision, address) of the weights that timm would load."""
    import timm

    arch, tag = resolve_name(name)
    if arch == VIT_NANO:
        raise BackboneError(f"the weights of {VIT_NANO} are part of this package", where=name, remedy="use it as it is")
    full = f"{arch}.{tag}" if tag else arch
    config: Any = timm.models.get_pretrained_cfg(full) if timm.is_model(full) else None
    if config is None:
        raise BackboneError(f"timm has no model {full!r}", where=name, remedy="give a name of timm.list_pretrained()")
    repo, revision = config.hf_hub_id or "", None
    if "@" in repo:
        repo, _, revision = repo.partition("@")
    if not repo and not config.url:
        raise BackboneError(
            f"timm has no weights for {full!r}", where=name, remedy="give a name with a tag that has some"
        )
    return arch, config.tag or tag, repo, revision, config.url or ""


def _from_hub(repo: str, revision: str | None) -> tuple[Path, str]:
    """The file of weights that timm would take, and the commit that it is of."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in FILES:
        try:
            file = Path(hf_hub_download(repo, name, revision=revision, etag_timeout=5))
            return file, file.parent.name  # models--OWNER--NAME/snapshots/COMMIT/FILE
        except LocalEntryNotFoundError:
            if name == FILES[-1]:
                raise
        except EntryNotFoundError:
            continue
    raise ValueError(f"the repository {repo} has none of {', '.join(FILES)}")


def _described(repo: str, commit: str) -> tuple[str, str]:
    """Architecture and tag that a repository of timm says of itself; empty ones if it says nothing."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        config = strict_json(Path(hf_hub_download(repo, "config.json", revision=commit, etag_timeout=5)).read_bytes())
    except EntryNotFoundError:
        return "", ""
    pretrained = config.get("pretrained_cfg", config) if isinstance(config, dict) else {}
    tag = pretrained.get("tag") if isinstance(pretrained, dict) else ""
    return str(config.get("architecture") or ""), str(tag or "")


def _from_address(url: str) -> Path:
    from timm.models._hub import download_cached_file

    return Path(download_cached_file(url, check_hash=False))


def _attempt(get: Callable[[], T], name: str) -> T:
    try:
        return get()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise BackboneError(
            f"the weights of {name} cannot be had: {reason[0] if reason else type(error).__name__}",
            where=name,
            remedy="check the name, and the revision",
        ) from error
