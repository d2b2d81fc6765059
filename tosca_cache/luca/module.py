"""The LuCA module and the cosine head as functions of stacked parameters (reference/tosca.md; TOSCA, TMLR 2026, section 3).

Everything has a leading model axis M; a single module is M = 1. Inputs [n, d] are shared by all models, [M, n, d] are not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.config.schema import FLOWS
from tosca_cache.errors import RunError
from tosca_cache.luca.parameters import Head, Luca

NORM_EPS = 1e-5
COSINE_EPS = 1e-12
ENTROPY_EPS = 1e-9


def finite(x: Tensor) -> Tensor:
    """These adapted features; raises `RunError` if they are no numbers, because the module diverged."""
    if not bool(torch.isfinite(x).all()):
        problem = "training diverged: what a module makes of its features is not finite"
        raise RunError(problem, where="--lr", remedy="give a smaller learning rate")
    return x


def adapt(luca: Luca, x: Tensor, flow: str) -> Tensor:
    """The adapted features of every model.

    Arguments:
        x: features, [n, d] or [M, n, d].
        flow: one of `FLOWS`.

    Returns:
        [M, n, d]:  `tosca` h * S(h) with h = LN(x + A(x));  `tosca_r` x * S(x) + LN(A(x));  `adapter` LN(A(x));
        `calibrator` x * S(x).
    """
    if x.dim() == 2:
        x = x.expand(luca.norm_weight.shape[0], *x.shape)
    if flow == "tosca":
        h = _norm(luca, x + _adapter(luca, x))
        return h * _gate(luca, h)
    if flow == "tosca_r":
        return x * _gate(luca, x) + _norm(luca, _adapter(luca, x))
    if flow == "adapter":
        return _norm(luca, _adapter(luca, x))
    if flow == "calibrator":
        return x * _gate(luca, x)
    raise ValueError(f"flow is {flow!r}, known are {FLOWS}")


def _adapter(luca: Luca, x: Tensor) -> Tensor:
    hidden = torch.baddbmm(luca.down_bias.unsqueeze(1), x, luca.down_weight.transpose(1, 2))  # [M, n, h]
    return torch.baddbmm(luca.up_bias.unsqueeze(1), F.gelu(hidden), luca.up_weight.transpose(1, 2))  # [M, n, d]


def _gate(luca: Luca, x: Tensor) -> Tensor:
    squeezed = torch.relu(torch.bmm(x, luca.squeeze_weight.transpose(1, 2)))  # [M, n, s]
    return torch.sigmoid(torch.bmm(squeezed, luca.excite_weight.transpose(1, 2)))  # [M, n, d]


def _norm(luca: Luca, x: Tensor) -> Tensor:
    if x.shape[0] == 1:  # the fused kernel with its affine part; the same arithmetic
        return F.layer_norm(x, x.shape[-1:], luca.norm_weight[0], luca.norm_bias[0], NORM_EPS)
    plain = F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)
    return torch.addcmul(luca.norm_bias.unsqueeze(1), plain, luca.norm_weight.unsqueeze(1))


def normalise(v: Tensor) -> Tensor:
    """v / max(|v|, 1e-12) along the last axis: a zero row stays zero, and its gradient is about 1e12 large."""
    return F.normalize(v, dim=-1, eps=COSINE_EPS)


def cosine_logits(head: Head, z: Tensor) -> Tensor:
    """sigma * cos(z, W): adapted features [M, n, d] to logits [M, n, C]."""
    return head.sigma.unsqueeze(-1) * torch.bmm(normalise(z), normalise(head.weight).transpose(1, 2))


def entropy_and_prediction(logits: Tensor) -> tuple[Tensor, Tensor]:
    """H = -sum p log(p + 1e-9) over all classes seen, and the argmax class; both without the last axis of `logits`."""
    prediction = logits.argmax(-1)
    p = torch.softmax(logits, -1)
    return -(p * torch.log(p + ENTROPY_EPS)).sum(-1), prediction
