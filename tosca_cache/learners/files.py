"""A learner on disk: one safetensors file with its numbers, and what it is as JSON in the header; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tosca_cache.config import Settings
from tosca_cache.errors import RunError
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.learners.base import Learner, learner_type
from tosca_cache.tasks import TaskStream
from tosca_cache.train.engines import Engine

FILE = "learner.safetensors"
FORMAT = 2  # in the first, states had other names
KEY = "tosca_cache"  # of the header


def save_learner(path: Path, learner: Learner, options: Mapping[str, Any], stream: TaskStream) -> None:
    """Writes a learner that has seen all tasks of a stream; raises `OSError` if the disk refuses.

    Arguments:
        options: of its constructor, besides what all learners take.
    """
    from safetensors.torch import save

    facts = {
        "format": FORMAT,
        "method": learner.name,
        "options": dict(options),
        "settings": asdict(learner.settings),
        "seed": learner.seed,
        "dim": stream.dim,
        "task_sizes": stream.sizes,
        "class_names": [stream.class_names[c] for c in stream.class_of],
        "domain_names": list(stream.domain_names),
    }
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in learner.state().items()}
    path.write_bytes(save(state, {KEY: json.dumps(facts, ensure_ascii=True)}))


def load_learner(
    path: Path, *, device: torch.device | str = "cpu", engine: Engine | None = None
) -> tuple[Learner, dict[str, Any]]:
    """The saved learner, and the JSON of its header; raises `RunError` if the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = read_limited(path, Limit.LEARNER)
        state = load(data)  # which has checked the header that is read next
        facts = strict_json(strict_json(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][KEY])
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, not {FORMAT}")
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in facts["options"].items()}
        settings = Settings(**facts["settings"])
        learner = learner_type(facts["method"])(
            seed=facts["seed"], settings=settings, device=device, engine=engine, **options
        )
        learner.load_state(state)
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise RunError(f"not a readable learner: {error}", where=path, remedy="train the run again") from error
    return learner, facts
