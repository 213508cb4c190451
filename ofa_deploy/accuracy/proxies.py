"""Zero-cost proxies: scores that order untrained networks, from one batch of images and at most two passes.

- ``synflow``: Σ |w · ∂R/∂w| with all weights made positive, batch norm left out and an input of ones, where R is the
  sum of the outputs (Tanaka et al., NeurIPS 2020, §5). Needs no data. Its logarithm is given: the sum spans decades.
- ``grad_norm``: sum over convolutions and linear layers of the norm of the loss's gradient (Abdelfattah et al., ICLR
  2021, §3.1).
- ``fisher``: Σ over channels of ½ · mean over images of (Σ over pixels of activation · its gradient)² (Turner et al.,
  ICLR 2020, §3; as a proxy in Abdelfattah et al., §3.1). The activations are those that layers pass on, after batch
  norm and activation function; the latter's published code takes the convolutions' bare outputs.
- ``naswot``: log-determinant of the kernel of how many units answer alike to each pair of images (Mellor et al., ICML
  2021, §3). A unit answers where what goes into its activation function is positive, hard swish like ReLU.

They are meant for networks at initialisation; with inherited weights they are other scores of the same formula, which
``tests/benchmarks/proxies.py`` compares. They compare networks that saw the same batch. Batch norm takes that batch's
statistics, but for ``synflow``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Set
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.blocks import Activation, BatchNorm, Block, Layer
from ofa_deploy.errors import UsageError
from ofa_deploy.supernet import Subnet
from ofa_deploy.supernet.execute import BlockModule

DATA_PROXIES = ("grad_norm", "fisher", "naswot")
PROXIES = ("synflow", *DATA_PROXIES)


def proxy_scores(
    subnet: Subnet, images: Tensor, labels: Tensor, proxies: tuple[str, ...] = PROXIES
) -> dict[str, float]:
    """Scores of one network, with whatever weights it has; its weights and statistics stay as they are.

    Those that need images share one forward and one backward pass.

    Args:
        images, labels: one batch, ``[N, C, R, R]`` normalised and ``[N]``.

    Raises:
        UsageError: an unknown proxy.
    """
    if unknown := set(proxies) - set(PROXIES):
        raise UsageError(f"unknown proxy {sorted(unknown)[0]!r}; known: {', '.join(PROXIES)}")
    scores = {}
    if "synflow" in proxies:
        scores["synflow"] = _synflow(subnet)
    if of_images := set(proxies) & set(DATA_PROXIES):
        scores |= _from_batch(subnet, images, labels, of_images)
    return {name: scores[name] for name in proxies}


def _synflow(subnet: Subnet) -> float:
    # doubles: products of positive weights through all layers leave the range of floats
    network = copy.deepcopy(subnet).double().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                module.running_var.sub_(module.eps)  # type: ignore[union-attr]  # so that it is the identity
        for parameter in network.parameters():
            parameter.abs_()
    with torch.enable_grad():
        network(torch.ones(1, *subnet.network.input_shape, dtype=torch.double)).sum().backward()
    weights = _weights(network)
    total = sum(float((w.detach() * w.grad).abs().sum()) for w in weights if w.grad is not None)
    return float(torch.log(torch.tensor(total, dtype=torch.double)))


def _from_batch(subnet: Subnet, images: Tensor, labels: Tensor, wanted: Set[str]) -> dict[str, float]:
    network = copy.deepcopy(subnet).train()
    outputs: list[Tensor] = []
    signs: list[Tensor] = []

    def kept(activated: Set[Layer], ends: Set[Layer], layer: Layer, output: Tensor) -> Tensor:
        """What a block's next layers read."""
        if layer in activated and "naswot" in wanted:
            signs.append((output > 0).flatten(1).float())
        if layer not in ends or "fisher" not in wanted:
            return output
        output = output.clone()  # the next layer may work in place
        output.retain_grad()
        outputs.append(output)
        return output.clone()

    for module in network.modules():
        if isinstance(module, BlockModule):
            module.observe = partial(kept, *_normalised(module.block))
    with torch.set_grad_enabled(wanted != {"naswot"}):
        loss = F.cross_entropy(network(images), labels)
    scores = {}
    if wanted != {"naswot"}:
        loss.backward()
        gradients = [w.grad for w in _weights(network) if w.grad is not None]
        scores["grad_norm"] = float(sum(gradient.norm() for gradient in gradients))
        scores["fisher"] = sum(_fisher(output) for output in outputs)
    if "naswot" in wanted:
        scores["naswot"] = _log_determinant(signs)
    return scores


def _normalised(block: Block) -> tuple[set[Layer], set[Layer]]:
    """The batch norms that an activation follows, and the last layer of every convolution with its batch norm: that
    activation, or the batch norm."""
    activated, ends = set[Layer](), set[Layer]()
    for i, layer in enumerate(block.layers):
        if isinstance(layer, BatchNorm):
            after = [block.layers[j] for j in block.readers.get(i, ())]
            activation = len(after) == 1 and isinstance(after[0], Activation)
            activated |= {layer} if activation else set()
            ends.add(after[0] if activation else layer)
    return activated, ends


def _fisher(output: Tensor) -> float:
    """Half the mean square, over images, of each channel's activation times gradient, summed over channels."""
    if output.grad is None:
        return 0.0
    # the loss is a mean over images: times N, so that the score does not fall with the batch
    change = (output.detach() * output.grad).reshape(*output.shape[:2], -1).sum(2) * len(output)
    return float(0.5 * change.square().mean(0).sum())


def _log_determinant(signs: list[Tensor]) -> float:
    """Of the kernel ``[N, N]``; minus infinity where nothing tells two images apart."""
    kernel = sum((sign @ sign.T + (1 - sign) @ (1 - sign).T).double() for sign in signs)
    return float(torch.linalg.slogdet(kernel).logabsdet) if isinstance(kernel, Tensor) else -math.inf


def _weights(network: nn.Module) -> list[Tensor]:
    return [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
