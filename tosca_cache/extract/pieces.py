"""Pieces of a view's feature: [CLS] of earlier blocks, and other poolings of the last one than the backbone's own.

The feature of a view is the pieces behind one another, the last block's at the end. `--layers K` puts [CLS] of the outputs
of the K - 1 blocks before the last in front of it: before the final norm, as LayUP (TMLR 2024) reads them. The piece of the
last block is after the final norm. By `--pool` it is

- `cls`: the backbone's own pre-head feature ([CLS], or what a network without it pools), as if nothing were said;
- `mean`: the mean of the patch tokens, or of the places of a feature map;
- `cls+mean`: both, 2 d numbers, as DINOv2's linear evaluation has them (arXiv 2304.07193);
- `gem`: (mean max(x, 1e-6)^p)^(1/p) over the same, p = 3: generalised mean pooling (arXiv 1711.02512), whose maps come
  out of a ReLU; of a transformer's tokens it sees the positive values alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tosca_cache.config.checks import Count, one_of
from tosca_cache.errors import UsageError
from tosca_cache.extract.names import check_options, option
from tosca_cache.extract.tuning import SideBySide

POOLS = ("cls", "mean", "cls+mean", "gem")
GEM_P, GEM_LEAST = 3, 1e-6  # of arXiv 1711.02512's code


@dataclass(frozen=True)
class Kept:
    """What is kept of every view. layers: of how many blocks. pool: of the last one, one of `POOLS`.

    Raises `UsageError` for anything else.
    """

    layers: int = option(1, Count)
    pool: str = option("cls", one_of(POOLS))

    def __post_init__(self) -> None:
        check_options(self)

    @classmethod
    def recorded(cls, names: Sequence[str]) -> Kept:
        """What a fingerprint's names of pieces say; none: the backbone's own feature."""
        return cls(len(names), names[-1].partition("@")[0]) if names else cls()

    @property
    def plain(self) -> bool:
        """Whether it is the backbone's own feature alone."""
        return self == Kept()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pieces: `cls@-2` is [CLS] of the block before the last; the last piece has the name of its pooling."""
        last = f"gem@p={GEM_P}" if self.pool == "gem" else self.pool
        return (*(f"cls@-{block}" for block in range(self.layers, 1, -1)), last)

    def widths(self, model: nn.Module, image_size: int) -> tuple[int, ...]:
        """Numbers of each piece, as one image gives them.

        Raises `UsageError` for what this backbone has not: a class token in every block, so many blocks, places to pool.
        """
        for one in (model.base, model.adapted) if isinstance(model, SideBySide) else (model,):
            self._check(one)
        with torch.inference_mode():
            image = torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)
            return tuple(piece.shape[1] for piece in KeptFeatures(model, self).pieces(model, image))

    def _check(self, model: nn.Module) -> None:
        kind, blocks = type(model).__name__, len(getattr(model, "blocks", ()))
        tokens = getattr(model, "cls_token", None) is not None and hasattr(model, "forward_intermediates")
        pools = self.pool == "cls" or (hasattr(model, "forward_features") and hasattr(model, "forward_head"))
        if not (pools and self.layers <= max(blocks, 1) and (tokens or (self.layers == 1 and self.pool != "cls+mean"))):
            has = f"{blocks} blocks, {'with' if tokens else 'without'} a [CLS] token"
            raise UsageError(
                f"a {kind} ({has}) cannot give --layers {self.layers} --pool {self.pool}",
                where="--layers and --pool",
                remedy="leave them out, or choose a transformer with a class token (vit_..., deit_...)",
            )


class KeptFeatures(nn.Module):
    """A backbone that gives its pieces behind one another: [n, 3, S, S] -> [n, sum of widths].

    Of a frozen and an adapted backbone side by side each piece is both, the frozen one's first.
    """

    def __init__(self, model: nn.Module, kept: Kept) -> None:
        super().__init__()
        self.model, self.kept = model, kept

    def forward(self, x: Tensor) -> Tensor:
        """Pixels -> pieces."""
        return torch.cat(self.pieces(self.model, x), 1)

    def pieces(self, model: Any, x: Tensor) -> list[Tensor]:
        """What a model gives of pixels, each [n, width]."""
        if isinstance(model, SideBySide):
            both = zip(self.pieces(model.base, x), self.pieces(model.adapted, x), strict=True)
            return [torch.cat(pair, 1) for pair in both]
        earlier: list[Tensor] = []
        if self.kept.layers > 1:
            depth = len(model.blocks)
            wanted = list(range(depth - self.kept.layers, depth - 1))
            last, found = model.forward_intermediates(
                x, indices=wanted, norm=False, output_fmt="NLC", return_prefix_tokens=True
            )
            earlier = [prefix[:, 0] for _, prefix in found]
        else:
            last = model.forward_features(x)
        parts = [model.forward_head(last, pre_logits=True)] if self.kept.pool.startswith("cls") else []
        if self.kept.pool != "cls":
            parts.append(_pooled(model, last, self.kept.pool))
        return [*earlier, torch.cat(parts, 1)]


def _pooled(model: Any, last: Tensor, pool: str) -> Tensor:
    """Mean or generalised mean over patch tokens [n, tokens, d] or over the places of a map, [n, d]; in float32."""
    if last.ndim == 4:
        places = last.flatten(1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else last.flatten(2).mT
    else:
        places = last[:, int(getattr(model, "num_prefix_tokens", 0)) :]
    places = places.float()
    if pool == "gem":
        found = places.clamp(min=GEM_LEAST).pow(GEM_P).mean(1).pow(1 / GEM_P).to(last.dtype)
    else:
        found = places.mean(1).to(last.dtype)
    norm = getattr(model, "fc_norm", None)  # of transformers that are made to pool: behind the mean, not before it
    return found if norm is None else norm(found)
