"""Small trainable modules inside a frozen vision transformer (parameter-efficient tuning), and putting them there.

Each kind is built as published; where our start differs it is said. All but `vpt` begin as the identity: a transformer with
fresh modules gives the features that it gave before. Prompt tokens take part in every attention from the start, so `vpt`
cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from tosca_cache.errors import BackboneError
from tosca_cache.extract.weights import tensor_problems

Tensors = dict[str, torch.Tensor]

# What each kind takes, with the values of the papers and their code (see the classes); `size` is the one that a user sets.
KINDS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "adapter": MappingProxyType({"size": 64, "scale": 0.1, "dropout": 0.1}),
        "ssf": MappingProxyType({}),
        "lora": MappingProxyType({"size": 8, "alpha": 8.0}),
        "vpt": MappingProxyType({"size": 5}),
        "film": MappingProxyType({}),
    }
)
_INNER = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")  # what SSF follows in a block
_NORMS = ("norm1", "norm2")


class AdapterBlock(nn.Module):
    """A transformer block with a bottleneck beside its MLP: x + MLP(LN(x)) + s W_up ReLU(W_down x).

    AdaptFormer's parallel adapter (arXiv 2205.13535) as APER and RanPAC have it: x is the stream after attention, s = 0.1,
    dropout 0.1 on the bottleneck; W_down Kaiming-uniform, W_up and biases 0.
    """

    def __init__(self, block: nn.Module, dim: int, *, size: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.block = block
        self.down, self.up, self.dropout = nn.Linear(dim, size), nn.Linear(size, dim), nn.Dropout(dropout)
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, d] -> [n, tokens, d]."""
        inner: Any = self.block
        x = x + inner.drop_path1(inner.ls1(inner.attn(inner.norm1(x))))
        adapted = self.scale * self.up(self.dropout(torch.relu(self.down(x))))
        return x + inner.drop_path2(inner.ls2(inner.mlp(inner.norm2(x)))) + adapted


class ScaleShift(nn.Module):
    """A layer, and a factor and a shift for each of its channels: gamma * layer(x) + beta.

    Behind every operation that is SSF (arXiv 2210.08823), behind the norms of blocks alone FiLM as FSA has it (arXiv
    2303.13199, whose networks are convolutions). gamma = 1 and beta = 0 at the start; SSF's own code draws them from
    N(1, 0.02) and N(0, 0.02).
    """

    def __init__(self, layer: nn.Module, dim: int, *, channels_first: bool = False) -> None:
        super().__init__()
        self.layer, self.channels_first = layer, channels_first
        self.gamma, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., c] -> [..., dim]; with `channels_first` [n, c, h, w] -> [n, dim, h', w']."""
        shape = (-1, 1, 1) if self.channels_first else (-1,)
        found: torch.Tensor = self.layer(x) * self.gamma.view(shape) + self.beta.view(shape)
        return found


class LowRankQueryValue(nn.Module):
    """The projection to queries, keys and values with low-rank updates of queries and values: W x + (alpha / r) B A x.

    LoRA (arXiv 2106.09685, section 4.2): A Kaiming-uniform, B 0, on queries and values alone; rank 8, alpha = rank.
    """

    def __init__(self, qkv: nn.Module, dim: int, *, size: int, alpha: float) -> None:
        super().__init__()
        self.qkv, self.factor = qkv, alpha / size
        self.down_q, self.down_v = (nn.Linear(dim, size, bias=False) for _ in range(2))
        self.up_q, self.up_v = (nn.Linear(size, dim, bias=False) for _ in range(2))
        for down, up in ((self.down_q, self.up_q), (self.down_v, self.up_v)):
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
            nn.init.zeros_(up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, d] -> [n, tokens, 3 d]."""
        query, value = self.up_q(self.down_q(x)), self.up_v(self.down_v(x))
        found: torch.Tensor = self.qkv(x) + self.factor * torch.cat((query, torch.zeros_like(query), value), -1)
        return found


class PromptedBlock(nn.Module):
    """A block that also attends to prompt tokens of its own, which are dropped behind it.

    VPT-deep (arXiv 2203.12119): 5 tokens a block as in APER and RanPAC, uniform in +-sqrt(6 / (3 p^2 + d)) for patches of
    p x p pixels (the paper's start; APER's code begins at 0, where all tokens of a block stay equal).
    """

    def __init__(self, block: nn.Module, dim: int, *, size: int, patch: int) -> None:
        super().__init__()
        self.block, bound = block, math.sqrt(6 / (3 * patch**2 + dim))
        self.prompts = nn.Parameter(torch.empty(size, dim).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, d] -> [n, tokens, d]."""
        prompts = self.prompts.to(x.dtype).expand(len(x), -1, -1)
        found: torch.Tensor = self.block(torch.cat((x, prompts), 1))
        return found[:, : x.shape[1]]


class SideBySide(nn.Module):
    """Two models on the same pixels, their features behind one another: [n, 3, S, S] -> [n, 2 d], the frozen one's first.

    The feature of APER (arXiv 2303.07338, section 4): [phi(x), phi_adapted(x)].
    """

    def __init__(self, base: nn.Module, adapted: nn.Module) -> None:
        super().__init__()
        self.base, self.adapted = base, adapted

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels -> both features."""
        return torch.cat((self.base(x), self.adapted(x)), 1)


def settings_of(kind: str, size: int | None = None) -> dict[str, float]:
    """The settings of a kind: as published, with another bottleneck, rank or number of prompt tokens if `size` is given."""
    found = dict(KINDS[kind])
    if size is not None:
        found["size"] = size
    return found


def insert(model: nn.Module, kind: str, settings: Mapping[str, float]) -> list[nn.Parameter]:
    """Puts fresh modules of a kind into a frozen ViT of timm; returns what is to be trained.

    Random starts come from torch's global generator. Raises `BackboneError` for a model whose blocks are not those of
    timm's VisionTransformer: what its blocks compute could not be known.
    """
    blocks, dim, how = _blocks(model), int(getattr(model, "embed_dim", 0)), dict(settings)
    frozen = {id(parameter) for parameter in model.parameters()}
    if "size" in how:
        how["size"] = int(how["size"])
    patch: Any = getattr(model, "patch_embed")  # noqa: B009 nn.Module's attributes are typed as tensors
    made: Mapping[str, tuple[tuple[str, ...], Callable[[nn.Module], nn.Module]]] = {
        "adapter": (("",), lambda block: AdapterBlock(block, dim, **how)),  # type: ignore[arg-type]
        "vpt": (("",), lambda block: PromptedBlock(block, dim, patch=int(patch.patch_size[0]), **how)),  # type: ignore[arg-type]
        "lora": (("attn.qkv",), lambda qkv: LowRankQueryValue(qkv, dim, **how)),  # type: ignore[arg-type]
        "film": (_NORMS, lambda layer: ScaleShift(layer, _width(layer))),
        "ssf": (_INNER, lambda layer: ScaleShift(layer, _width(layer))),
    }
    for number in range(len(blocks)):
        for name in made[kind][0]:
            _wrap(blocks, f"{number}.{name}".rstrip("."), made[kind][1])
    if kind in ("film", "ssf"):
        _wrap(model, "norm", made[kind][1])
    if kind == "ssf":
        _wrap(model, "patch_embed.proj", lambda layer: ScaleShift(layer, dim, channels_first=True))
    model.train(model.training)  # fresh modules begin in the mode for training
    return [parameter for parameter in model.parameters() if id(parameter) not in frozen]


def tensors_of(model: nn.Module, trained: list[nn.Parameter]) -> Tensors:
    """The trained tensors by their names in the model, on the CPU."""
    return {name: one.detach().cpu().contiguous().clone() for name, one in _named(model, trained).items()}


def put_tensors(model: nn.Module, trained: list[nn.Parameter], tensors: Tensors) -> list[str]:
    """Sets the trained tensors; returns what is wrong with those that were given, and then sets none."""
    mine = _named(model, trained)
    wrong = tensor_problems(mine, tensors)
    if not wrong:
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(tensors[name])
    return wrong


def _named(model: nn.Module, trained: list[nn.Parameter]) -> dict[str, nn.Parameter]:
    own = {id(parameter) for parameter in trained}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in own}


def _blocks(model: nn.Module) -> nn.Sequential:
    from timm.models.vision_transformer import Block, VisionTransformer

    found = getattr(model, "blocks", None)
    plain = type(model) is VisionTransformer and isinstance(getattr(model, "norm", None), nn.LayerNorm)
    if plain and isinstance(found, nn.Sequential) and {type(block) for block in found} == {Block}:
        return found
    raise BackboneError(
        f"only plain vision transformers can be adapted; this one is a {type(model).__name__}",
        where="--backbone",
        remedy="choose a ViT of timm (vit_..., deit_...) that pools by its class token",
    )


def _wrap(module: nn.Module, name: str, made: Callable[[nn.Module], nn.Module]) -> None:
    parent, _, last = name.rpartition(".")
    holder = module.get_submodule(parent)
    setattr(holder, last, made(holder.get_submodule(last)))


def _width(layer: nn.Module) -> int:
    """Channels that a linear layer or a norm gives."""
    found: Any = layer
    return int(found.out_features) if isinstance(layer, nn.Linear) else int(found.normalized_shape[0])
