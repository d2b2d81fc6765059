"""Every setting of `tosca train`: its name, default, section, meaning and limits. The one place that knows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from math import cos, pi
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, Predicate

from tosca_cache.config.checks import Count, Kind, OrNone, accept, nearest, one_of, several, text
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
INCREMENT = "increment"  # how a file says that tasks have as many classes as that says

_Natural = Annotated[int, Ge(0)]
_NotNegative = Annotated[float, Ge(0)]
_Positive = Annotated[float, Gt(0)]
_Device = text("auto, cpu, mps, cuda or cuda:N", r"auto|cpu|mps|cuda(:[0-9]+)?")
_Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # the range of numpy.random.RandomState
_Seeds = several(_Seed, "integers, all different, from 0 to 2**32 - 1", 1, Predicate(lambda n: len(set(n)) == len(n)))
_Increasing = Predicate(lambda numbers: list(numbers) == sorted(set(numbers)))
_Class: Kind = _Natural | text("a name")  # whether there is one is known to a store alone
_SECTIONS = ("data", "store", "protocol", "method", "module", "training", "inference")


def _setting(default: object, section: str, kind: Kind, help: str, *, none: str | None = None) -> Any:
    """A dataclass field that carries its section, limits and help; `Any` because it stands for the field's value.

    Arguments:
        none: how a file says None, if that is a value.
    """
    kind = kind if none is None else Annotated[kind, OrNone(none)]
    return field(default=default, metadata={"section": section, "kind": kind, "help": help})


@dataclass(frozen=True)
class Settings:
    """What training a task depends on; the defaults are the published ones (reference/tosca.md, "Training a task").

    Raises `ConfigError` if any value is of the wrong type or out of range.
    """

    flow: str = _setting("tosca", "module", one_of(FLOWS), "How adapter and calibrator are joined in the LuCA module.")
    mlp_ratio: int = _setting(16, "module", Count, "Feature size over bottleneck size in the adapter.")
    se_ratio: int = _setting(16, "module", Count, "Feature size over bottleneck size in the calibrator.")

    l1: float = _setting(5e-4, "training", _NotNegative, "Weight of the L1 term over the module's parameters.")
    lr: float = _setting(0.025, "training", _Positive, "Learning rate at the start of each task.")
    epochs: int = _setting(20, "training", Count, "Epochs for each task.")
    batch_size: int = _setting(48, "training", Count, "Images in a training minibatch.")
    optimizer: str = _setting("sgd", "training", one_of(OPTIMIZERS), "Optimizer over module, head and scale.")
    scheduler: str = _setting("cosine", "training", one_of(SCHEDULERS), "Learning-rate schedule, stepped each epoch.")
    milestones: tuple[int, ...] = _setting(
        (),
        "training",
        several(Count, "integers of at least 1 in increasing order", order=_Increasing),
        "Epochs after which steplr multiplies the rate by gamma.",
    )
    weight_decay: float = _setting(0.0, "training", _NotNegative, "Weight decay of the optimizer.")
    momentum: float = _setting(0.9, "training", Annotated[float, Ge(0), Lt(1)], "Momentum of SGD.")
    eta_min: float = _setting(1e-8, "training", _NotNegative, "Learning rate at which the cosine schedule ends.")
    gamma: float = _setting(0.1, "training", _Positive, "Factor of the steplr schedule.")

    def __post_init__(self) -> None:
        for item in fields(self):
            # Frozen, but a list becomes a tuple and 1 becomes 1.0, so that equal settings compare equal.
            object.__setattr__(self, item.name, check_value(item.name, getattr(self, item.name)))

    @classmethod
    def of(cls, config: TrainConfig) -> Settings:
        """The part of a configuration that training depends on."""
        return cls(**{item.name: getattr(config, item.name) for item in fields(cls)})

    def steps(self, rows: Iterable[int]) -> int:
        """Training steps over tasks of so many rows; the last short batch of an epoch is kept."""
        return self.epochs * sum(-(-n // self.batch_size) for n in rows)

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of one epoch, counted from 0; it changes once an epoch."""
        if self.scheduler == "cosine":
            return self.eta_min + (self.lr - self.eta_min) * (1 + cos(pi * epoch / self.epochs)) / 2
        if self.scheduler == "steplr":
            return self.lr * self.gamma ** sum(milestone <= epoch for milestone in self.milestones)
        return self.lr


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Settings of one `tosca train`: of training, and of all around it.

    The defaults are the published hyperparameters of TOSCA (arXiv 2502.14762), its router asked a sample at a time.
    """

    dataset: str = _setting("digits", "data", text("the name of a dataset"), "Dataset whose store is trained on.")

    backbone: str | None = _setting(
        None, "store", text("the name of a timm model"), "Backbone that the store must come from.", none=ANY
    )
    normalize: str | None = _setting(
        None,
        "store",
        one_of(NORMALIZATIONS),
        "Input normalisation of the store: the backbone's own (timm) or none, as published.",
        none=ANY,
    )
    img_size: int | None = _setting(None, "store", Count, "Image size of the store, in pixels.", none=ANY)
    views: int | None = _setting(
        None, "store", _Natural, "Augmented views of each training image that the store must have.", none=ANY
    )

    incremental: str = _setting(
        "classes",
        "protocol",
        one_of(INCREMENTAL),
        "What a task brings: new classes, or a new domain with all its classes.",
    )
    init_cls: int | None = _setting(
        None, "protocol", Count, "Classes in the first task; by default as in the others.", none=INCREMENT
    )
    increment: int = _setting(10, "protocol", Count, "Classes in each task.")
    task_sizes: tuple[int, ...] | None = _setting(
        None,
        "protocol",
        several(Count, "integers of at least 1", 1),
        "Classes of each task, one number a task, instead of init_cls and increment.",
        none=INCREMENT,
    )
    shuffle: bool = _setting(True, "protocol", bool, "Order the classes (or domains) by a permutation from the seed.")
    class_order: tuple[int | str, ...] | None = _setting(
        None,
        "protocol",
        several(_Class, "a list of class names, or of indices", 1),
        "The classes in the order in which they are learned, instead of one drawn from the seed.",
        none=SEED,
    )
    shots: int | None = _setting(
        None, "protocol", Count, "Few-shot: train rows of each class after the first task.", none=ALL
    )
    seeds: tuple[int, ...] = _setting(
        (1993,), "protocol", _Seeds, "Seeds of task order, initialisation and minibatches; one training run for each."
    )

    method: str = _setting(  # which learners and routers exist is known to their rooms alone
        "tosca", "method", text("the name of a learner"), "Learner that is trained (`tosca methods`)."
    )
    options: tuple[str, ...] = _setting(
        (),
        "method",
        several(text("an option"), "a list, each an option of the learner"),
        "An option of the learner, as OPTION=VALUE (`tosca methods`).",
    )

    device: str = _setting("auto", "training", _Device, "Device to train on; auto takes a GPU if there is one.")
    engine: str = _setting(
        "auto",
        "training",
        one_of(ENGINES),
        "What trains: native (compiled kernels, CPU only), torch, or auto: native on a CPU where it pays for compiling.",
    )

    router: str = _setting(
        "sample",
        "inference",
        text("the name of a router"),
        "How the module of an image is chosen (docs/routers.md), or batch: for 48 in file order (leaks the task).",
    )
    routing_batch_size: int = _setting(48, "inference", Count, "Test images in a batch that is routed together.")

    def __post_init__(self) -> None:
        super().__post_init__()
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
    "task_sizes": ("task_sizes says how many classes each task has", INCREMENT),
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
SECTIONS: dict[str, tuple[str, ...]] = {
    section: tuple(key for key, item in _FIELDS.items() if item.metadata["section"] == section) for section in _SECTIONS
}
KEYS: tuple[str, ...] = tuple(key for keys in SECTIONS.values() for key in keys)


def help_text(key: str) -> str:
    """One sentence on what `key` means, for `--help` and the docs."""
    return str(_FIELDS[key].metadata["help"])


def kind_of(key: str) -> Kind:
    """What values `key` takes."""
    return _FIELDS[key].metadata["kind"]


def default_of(key: str) -> object:
    """The value of `key` if nothing sets it."""
    default = _FIELDS[key].default
    assert default is not MISSING  # every setting has a default, so that `TrainConfig()` exists
    return default


def check_value(key: str, value: object, *, where: str | None = None) -> Any:
    """The value of `key` in its own type (a list of seeds becomes a tuple, 1 becomes 1.0 where numbers are real).

    Arguments:
        where: what an error names instead of the key alone, for instance the file and section.

    Raises `ConfigError` if the type is wrong or the value out of range.
    """
    found = accept(kind_of(key), key, value, where or key)
    return DATASET_ALIASES.get(found, found) if key == "dataset" else found


def unknown_key(key: str, known: tuple[str, ...], where: str) -> ConfigError:
    """The error for a key that does not exist, naming the nearest that does."""
    return ConfigError(
        f"Unknown key {key!r}.", where=where, remedy=f"Did you mean {nearest(key, known)!r}? Known: {', '.join(known)}."
    )
