"""Batch norm over the batches of several processes together (torch's ``SyncBatchNorm`` refuses a CPU)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.errors import OfaDeployError

Group = dist.ProcessGroup
_around: ContextVar[Group | None] = ContextVar("the processes that share a batch", default=None)


@contextmanager
def synchronised(group: Group | None) -> Iterator[None]:
    """Within: supernets in training mode normalise by the statistics of all processes' batches together.

    Every process must then run the same subnets in the same order. It holds for the calling thread alone.

    Args:
        group: the processes; None changes nothing.
    """
    token = _around.set(group)
    try:
        yield
    finally:
        _around.reset(token)


def group_around() -> Group | None:
    """The processes that share a batch here; None where this process is on its own.

    None, too, in what ``torch.compile`` traces: it cannot ask a context, and is for a process on its own
    (``training.supernet_training`` refuses it to several).
    """
    return None if torch.compiler.is_compiling() else _around.get()


class PeerLostError(OfaDeployError):
    """Another process of a distributed training died, or does not answer in time."""


@contextmanager
def reaching_peers() -> Iterator[None]:
    """Around every collective: what its backend raises becomes one line."""
    try:
        yield
    except RuntimeError as error:  # gloo raises no class of its own
        reason = " ".join(str(error).split()).rpartition("] ")[2].partition(". ")[0]
        raise PeerLostError(
            f"another process of this training died or did not answer in time ({reason[:120]}); what was trained up to "
            "the last checkpoint is kept: run the same command again, with --resume, on all machines"
        ) from error


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Group) -> Tensor:
    """Normalise ``[N, C, h, w]`` by mean and variance over the batches of all processes.

    The loss must be a sum over the processes: the gradient of ``x`` is that of all their losses together, those of
    ``weight`` and ``bias`` are this process's share, to be added up with the other parameters'.

    Source: Ioffe & Szegedy, ICML 2015, §3; variances of parts combine as in Chan, Golub & LeVeque, 1979.

    Raises:
        PeerLostError: a process died.
    """
    return _BatchNorm.apply(x, weight, bias, eps, group)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Group) -> Tensor:
        mean, var, ctx.count = _moments(x.to(weight.dtype), group)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.group = eps, group
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        # as if mean and variance were constants: grad·weight/σ, Σ grad·x̂ and Σ grad
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = _gather(torch.stack([dweight, dbias]), ctx.group).sum(0)
        # less what flows back through them: weight/σ · (Σ grad + x̂ Σ grad·x̂) / count
        rstd = (var + ctx.eps).rsqrt()
        slope, level = sums * (weight * rstd / ctx.count)
        through = F.batch_norm(x, mean, var, slope, level, False, 0.0, ctx.eps)
        return dx.sub_(through), dweight, dbias, None, None


def _moments(x: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance ``[C]`` over all processes, and the number of values that they are over."""
    # the sums of torch's own batch norm; torch.var_mean takes up to 20 times as long on a CPU
    mean, var = torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)
    own = torch.cat([mean, var, mean.new_tensor([x.numel() // x.shape[1]])])
    means, variances, counts = _gather(own, group).split([len(mean), len(mean), 1], dim=1)
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(0), counts.sum()


def _gather(own: Tensor, group: Group) -> Tensor:
    """The same tensor of every process, ``[processes, …]``: one trip, where adding them up would take two."""
    parts = own.new_empty(group.size(), *own.shape)
    with reaching_peers():
        dist.all_gather(list(parts.unbind()), own, group=group)
    return parts
