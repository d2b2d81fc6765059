"""Every setting of `tosca train`: its name, default, section, meaning and limits. The one place that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, cast

from tosca_cache.config.checks import (
    Check,
    Choice,
    Flag,
    Integer,
    Integers,
    Labels,
    Number,
    OrNone,
    Text,
    Texts,
    accept,
    nearest,
)
from tosca_cache.errors import ConfigError

FLOWS = ("tosca", "tosca_r", "adapter", "calibrator")
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULERS = ("cosine", "steplr", "constant")
INCREMENTAL = ("classes", "domains")  # what a task brings
ENGINES = ("auto", "native", "torch")
NORMALIZATIONS = ("timm", "none")

DATASET_ALIASES = {"cifar224": "cifar100"}  # the reference's name for CIFAR-100 resized to 224 pixels
ANY = "any"  # how a file says that it does not mind which store

ALL = "all"  # how a file says that few-shot tasks have all their rows
SEED = "seed"  # how a file says that the seed draws the order of classes

_DEVICE = Text("auto, cpu, mps, cuda or cuda:N", r"auto|cpu|mps|cuda(:[0-9]+)?")
_SEEDS = Integers(Integer(0, 2**32 - 1), least=1)  # the range of numpy.random.RandomState


def _setting(default: object, section: str, check: Check, help: str) -> Any:
    """A dataclass field that carries its section, limits and help; `Any` because it stands for the field's value."""
    return field(default=default, metadata={"section": section, "check": check, "help": help})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one `tosca train`. Raises `ConfigError` if any value is of the wrong type or out of range.

    The defaults are the published hyperparameters of TOSCA (arXiv 2502.14762), its router asked a sample at a time.
    """

    dataset: str = _setting(
        "digits", "data", Text("the name of a dataset", aliases=DATASET_ALIASES), "Dataset whose store is trained on."
    )

    backbone: str | None = _setting(
        None, "store", OrNone(Text("the name of a timm model"), ANY), "Backbone that the store must come from."
    )
    normalize: str | None = _setting(
        None,
        "store",
        OrNone(Choice(NORMALIZATIONS), ANY),
        "Input normalisation of the store: the backbone's own (timm) or none, as published.",
    )
    img_size: int | None = _setting(None, "store", OrNone(Integer(1), ANY), "Image size of the store, in pixels.")
    views: int | None = _setting(
        None, "store", OrNone(Integer(0), ANY), "Augmented views of each training image that the store must have."
    )

    incremental: str = _setting(
        "classes",
        "protocol",
        Choice(INCREMENTAL),
        "What a task brings: new classes, or a new domain with all its classes.",
    )
    init_cls: int | None = _setting(
        None,
        "protocol",
        OrNone(Integer(1), "increment"),
        "Classes in the first task; by default as in the others.",
    )
    increment: int = _setting(10, "protocol", Integer(1), "Classes in each task.")
    task_sizes: tuple[int, ...] | None = _setting(
        None,
        "protocol",
        OrNone(Integers(Integer(1), least=1, repeated=True), "increment"),
        "Classes of each task, one number a task, instead of init_cls and increment.",
    )
    shuffle: bool = _setting(True, "protocol", Flag(), "Order the classes (or domains) by a permutation from the seed.")
    class_order: tuple[int | str, ...] | None = _setting(
        None,
        "protocol",
        OrNone(Labels(Text("the name of a class")), SEED),
        "The classes in the order in which they are learned, instead of one drawn from the seed.",
    )
    shots: int | None = _setting(
        None,
        "protocol",
        OrNone(Integer(1), ALL),
        "Few-shot: train rows of each class after the first task.",
    )
    seeds: tuple[int, ...] = _setting(
        (1993,), "protocol", _SEEDS, "Seeds of task order, initialisation and minibatches; one training run for each."
    )

    method: str = _setting(
        "tosca",
        "method",
        Text("the name of a learner"),  # which exist is known to the room of learners alone
        "Learner that is trained (`tosca methods`).",
    )
    options: tuple[str, ...] = _setting(
        (),
        "method",
        Texts(Text("an option of the learner")),
        "An option of the learner, as OPTION=VALUE (`tosca methods`).",
    )

    flow: str = _setting("tosca", "module", Choice(FLOWS), "How adapter and calibrator are joined in the LuCA module.")
    mlp_ratio: int = _setting(16, "module", Integer(1), "Feature size over bottleneck size in the adapter.")
    se_ratio: int = _setting(16, "module", Integer(1), "Feature size over bottleneck size in the calibrator.")

    l1: float = _setting(5e-4, "training", Number(0), "Weight of the L1 term over the module's parameters.")
    lr: float = _setting(0.025, "training", Number(0, open_low=True), "Learning rate at the start of each task.")
    epochs: int = _setting(20, "training", Integer(1), "Epochs for each task.")
    batch_size: int = _setting(48, "training", Integer(1), "Images in a training minibatch.")
    optimizer: str = _setting("sgd", "training", Choice(OPTIMIZERS), "Optimizer over module, head and scale.")
    scheduler: str = _setting("cosine", "training", Choice(SCHEDULERS), "Learning-rate schedule, stepped each epoch.")
    milestones: tuple[int, ...] = _setting(
        (), "training", Integers(Integer(1), increasing=True), "Epochs after which steplr multiplies the rate by gamma."
    )
    weight_decay: float = _setting(0.0, "training", Number(0), "Weight decay of the optimizer.")
    momentum: float = _setting(0.9, "training", Number(0, 1, open_high=True), "Momentum of SGD.")
    eta_min: float = _setting(1e-8, "training", Number(0), "Learning rate at which the cosine schedule ends.")
    gamma: float = _setting(0.1, "training", Number(0, open_low=True), "Factor of the steplr schedule.")
    device: str = _setting("auto", "training", _DEVICE, "Device to train on; auto takes a GPU if there is one.")
    engine: str = _setting(
        "auto",
        "training",
        Choice(ENGINES),
        "What trains: native (compiled kernels, CPU only), torch, or auto: native on a CPU where it pays for compiling.",
    )

    router: str = _setting(
        "sample",
        "inference",
        Text("the name of a router"),  # which exist is known to the routing room alone: a router is one file there
        "How the module of an image is chosen (`tosca routers`), or batch: for 48 in file order (leaks the task).",
    )
    routing_batch_size: int = _setting(48, "inference", Integer(1), "Test images in a batch that is routed together.")

    def __post_init__(self) -> None:
        for name in KEYS:
            # Frozen, but a list becomes a tuple and 1 becomes 1.0, so that equal settings compare equal.
            object.__setattr__(self, name, check_value(name, getattr(self, name)))
        if self.scheduler == "steplr" and not self.milestones:
            raise ConfigError(
                "scheduler steplr has no milestones.",
                where="milestones",
                remedy="Give the epochs at which the learning rate falls (--milestones 10,15), or another scheduler.",
            )
        for key, decider in deciders(vars(self)).items():
            if getattr(self, key) != default_of(key):
                raise no_effect(key, decider, key)

    @property
    def idle(self) -> tuple[str, ...]:
        """Settings that have no effect beside the others, and keep their defaults."""
        return tuple(deciders(vars(self)))


# What a setting decides, so that other settings have no effect beside it, and how it is taken back.
_DECIDES = {
    "incremental": ("incremental is domains: each domain is a task, with all its classes", "classes"),
    "task_sizes": ("task_sizes says how many classes each task has", "increment"),
    "class_order": ("class_order says in which order classes are learned", SEED),
}


def deciders(values: Mapping[str, object]) -> dict[str, str]:
    """{key: the key that decides in its place} of the settings that have no effect beside the others."""
    if values["incremental"] == "domains":
        return dict.fromkeys(("init_cls", "increment", "task_sizes", "class_order"), "incremental")
    sizes = () if values["task_sizes"] is None else ("init_cls", "increment")
    order = () if values["class_order"] is None else ("shuffle",)
    return dict.fromkeys(sizes, "task_sizes") | dict.fromkeys(order, "class_order")


def why_idle(decider: str) -> str:
    """Why settings have no effect beside the key that decides in their place."""
    return _DECIDES[decider][0]


def no_effect(key: str, decider: str, where: str) -> ConfigError:
    """The error for a setting that is given where another one decides in its place."""
    reason, back = _DECIDES[decider]
    return ConfigError(
        f"{key} is given, but {reason}.", where=where, remedy=f"Leave {key} out, or set {decider} to {back}."
    )


_FIELDS: dict[str, Field[Any]] = {item.name: item for item in fields(TrainConfig)}
KEYS: tuple[str, ...] = tuple(_FIELDS)


def section_of(key: str) -> str:
    """The section of a config file in which `key` stands."""
    return str(_FIELDS[key].metadata["section"])


SECTIONS: dict[str, tuple[str, ...]] = {
    section: tuple(key for key in KEYS if section_of(key) == section)
    for section in dict.fromkeys(section_of(key) for key in KEYS)
}


def help_text(key: str) -> str:
    """One sentence on what `key` means, for `--help` and the docs."""
    return str(_FIELDS[key].metadata["help"])


def check_of(key: str) -> Check:
    """What values `key` takes."""
    return cast(Check, _FIELDS[key].metadata["check"])


def default_of(key: str) -> object:
    """The value of `key` if nothing sets it."""
    default = _FIELDS[key].default
    assert default is not MISSING  # every setting has a default, so that `TrainConfig()` exists
    return default


def check_value(key: str, value: object, *, where: str | None = None) -> object:
    """The value of `key` in its own type (a list of seeds becomes a tuple, 1 becomes 1.0 where numbers are real).

    Arguments:
        where: what an error names instead of the key alone, for instance the file and section.

    Raises `ConfigError` if the type is wrong or the value out of range.
    """
    return accept(check_of(key), key, value, where or key)


def unknown_key(key: str, known: tuple[str, ...], where: str) -> ConfigError:
    """The error for a key that does not exist, naming the nearest that does."""
    return ConfigError(
        f"Unknown key {key!r}.", where=where, remedy=f"Did you mean {nearest(key, known)!r}? Known: {', '.join(known)}."
    )
