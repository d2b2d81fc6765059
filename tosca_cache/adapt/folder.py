"""The folder of an adapted backbone while it is made: NAME.partial with the last epoch's state, then NAME."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tosca_cache.adapt.training import State
from tosca_cache.errors import BackboneError
from tosca_cache.extract.adapted import CARD, PARTS, AdaptedCard
from tosca_cache.extract.tuning import Tensors
from tosca_cache.files import file_errors, replacing, strict_json, write_json
from tosca_cache.store.spec import canonical

STATE = "state.safetensors"
PARTIAL = ".partial"


def adapted_files(where: Path) -> AbstractContextManager[None]:
    """Turns a failure of the file system into a `BackboneError` that says what to do about it."""
    return file_errors(where, BackboneError, option="--out")


def partial(path: Path) -> Path:
    """Where `path` is made."""
    return path.with_name(f"{path.name}{PARTIAL}")


def write_state(path: Path, state: State, plan: dict[str, Any]) -> None:
    """Puts the state after an epoch into the partial folder, in place of the one before; whole or not at all."""
    folder = partial(path)
    record = canonical({"plan": plan, **state.to_record()})
    with adapted_files(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / STATE) as file:
            file.write_bytes(save(state.tensors, {"record": record}))


def read_state(path: Path, plan: dict[str, Any]) -> State | None:
    """The state of a partial folder; None if there is none.

    Raises `BackboneError` if it cannot be read, or is that of another plan.
    """
    file = partial(path) / STATE
    if not file.is_file():
        return None
    try:
        with adapted_files(file), safe_open(str(file), framework="pt") as opened:
            record = strict_json((opened.metadata() or {}).get("record", ""))
            if record.pop("plan") != plan:
                raise ValueError("it was begun with other options")
            names = opened.keys()
            return State.from_record({name: opened.get_tensor(name) for name in names}, record)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(
            f"the unfinished adaptation cannot be gone on with: {error}"[:300],
            where=file,
            remedy="remove its folder, then run the same command again",
        ) from error


def finish(path: Path, parts: Tensors, card: dict[str, Any]) -> AdaptedCard:
    """Writes tensors and card beside the state, removes the state, and gives the folder its name."""
    folder, data = partial(path), save(parts)
    found = AdaptedCard(**card, parts_digest=hashlib.sha256(data).hexdigest())
    found = found.model_copy(update={"digest": found.own_digest()})
    with adapted_files(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / PARTS) as file:
            file.write_bytes(data)
        write_json(folder / CARD, found.model_dump())
        (folder / STATE).unlink(missing_ok=True)
        folder.rename(path)
    return found
