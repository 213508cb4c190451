"""``compile: true``: the subnets that every step runs, by torch.compile; all others as they are.

A subnet is a graph of its own, and compiling one takes longer than many steps; random ones hardly ever come again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from ofa_deploy.config import TrainRecipe
from ofa_deploy.notices import note
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Supernet
from ofa_deploy.training.devices import computing_in, device_of

Forward = Callable[[Tensor, Arch], Tensor]


def compiled(supernet: Supernet, archs: Iterable[Arch], recipe: TrainRecipe) -> Forward:
    """The supernet's forward pass, compiled for some subnets; where that fails, a line on stderr says why.

    Gradients must be cleared afterwards: a subnet is tried, backwards too, before it is relied on.
    """
    torch.use_deterministic_algorithms(True)  # tells the compiler, too
    ready: dict[str, Callable[[Tensor], Tensor]] = {}
    for arch in archs:
        run = torch.compile(partial(_run, supernet, arch), dynamic=False)
        try:
            with computing_in(recipe.precision, device_of(supernet)):
                logits = run(_images(supernet, arch, recipe.batch_size))
            logits.float().sum().backward()
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            note(f"torch.compile does not work here ({reason}); training continues without it")
            return supernet
        ready[arch.key] = run
    return lambda x, arch: ready[arch.key](x) if arch.key in ready else supernet(x, arch)


def _run(supernet: Supernet, arch: Arch, x: Tensor) -> Tensor:
    return supernet(x, arch)


def _images(supernet: Supernet, arch: Arch, batch: int) -> Tensor:
    weight = next(supernet.parameters())
    images = weight.new_zeros(batch, supernet.space.in_channels, arch.resolution, arch.resolution)
    return images.contiguous(memory_format=torch.channels_last)
