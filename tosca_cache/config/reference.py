"""The JSON config files of the reference implementation, taken unchanged (github.com/muratonuryildirim/tosca)."""

from __future__ import annotations

from collections.abc import Collection

from tosca_cache.config.checks import Kind, accept, one_of, text
from tosca_cache.config.schema import check_value, unknown_key
from tosca_cache.errors import ConfigError

DATASETS = ("cifar224", "cub", "imageneta", "imagenetr", "omnibenchmark", "vtab")

# Keys under another name than ours, under the same, and those that only the reference has or limits more narrowly.
_RENAMED = {"seed": "seeds", "backbone_type": "backbone"}
_SAME = (
    *("dataset", "shuffle", "init_cls", "increment", "mlp_ratio", "se_ratio", "l1", "flow", "epochs", "batch_size"),
    *("optimizer", "scheduler", "lr", "weight_decay", "milestones"),
)
_OWN: dict[str, Kind] = {
    "prefix": text("a name"),
    "dataset": one_of(DATASETS),
    "model_name": one_of(["tosca"]),
    "pretrained": bool,
}

# What files of the toolboxes that the reference is built on (PyCIL, LAMDA-PILOT) hold, and its TOSCA never reads.
_LINEAGE = (
    *("memory_size", "memory_per_class", "fixed_memory", "tuned_epoch", "trained_epoch", "init_epoch", "init_lr"),
    *("min_lr", "init_weight_decay", "init_milestones", "init_lr_decay", "lr_decay", "lrate_decay", "reinit_optimizer"),
    *("body_lr", "head_lr", "later_lr", "later_epochs", "num_workers", "nb_classes", "nb_tasks", "use_init_ptm"),
    *("get_original_backbone", "global_pool", "head_type", "freeze", "vpt_type", "prompt_token_num", "ffn_num"),
    *("use_RP", "M", "print_forget"),
)
_IGNORED = {
    "prefix": "names the reference's log files; a run directory has its own name",
    "pretrained": "the weights were chosen when the store was extracted",
} | dict.fromkeys(_LINEAGE, "the reference's TOSCA does not read it either")


def convert(
    raw: dict[str, object], label: str, overruled: Collection[str] = ()
) -> tuple[dict[str, object], dict[str, str]]:
    """Settings of ours out of a reference's JSON object.

    Arguments:
        overruled: our names of settings that are given elsewhere, so that what the file says of them does not count.

    Returns the settings by our names, and the keys that have no effect here with the reason.
    Raises `ConfigError` for an unknown key or a value that the key cannot have.
    """
    # The reference feeds pixels in [0, 1] to every backbone, so its files mean a store without normalisation.
    values: dict[str, object] = {"normalize": "none"}
    for key, value in raw.items():
        where = f"{label}, key {key}"
        if key in _LINEAGE or (key == "dataset" and key in overruled):
            continue
        if key not in KEYS:
            raise unknown_key(key, KEYS, where)
        if key in _OWN:  # what only the reference has, or limits more narrowly
            accept(_OWN[key], key, value, where)
        if key == "pretrained" and value is False:
            problem = "pretrained is false, but every store holds features of a pretrained backbone."
            raise ConfigError(problem, where=where, remedy="Set it to true, or leave it out.")
        if key == "device":
            values[key] = _device(value, where)
        elif key in _SAME or key in _RENAMED:
            name = _RENAMED.get(key, key)
            values[name] = check_value(name, () if key == "milestones" and value is None else value, where=where)
    ignored = {key: reason for key, reason in _IGNORED.items() if key in raw}
    return values, ignored


def _device(value: object, where: str) -> object:
    """["0"] -> auto, ["2"] -> cuda:2, ["-1"] -> cpu. Of several GPUs the first is taken: stage two uses one.

    Every published file says ["0"]; they must work on a machine without a GPU, too, so it becomes the first GPU if any.
    """
    devices = value if isinstance(value, list) else [value]
    texts = [str(device) for device in devices if isinstance(device, str | int) and not isinstance(device, bool)]
    if not texts or len(texts) < len(devices) or any(not text.removeprefix("-").isdecimal() for text in texts):
        raise ConfigError(
            f"device cannot be {value!r}.",
            where=where,
            remedy='Give a list of GPU numbers, such as ["0"]; ["-1"] is the CPU.',
        )
    first = int(texts[0])
    return "cpu" if first < 0 else f"cuda:{first}" if first else "auto"


KEYS = tuple(dict.fromkeys((*_OWN, *_RENAMED, *_SAME, "device")))
