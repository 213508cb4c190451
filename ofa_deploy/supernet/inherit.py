"""A supernet that starts from trained weights."""

from __future__ import annotations

from ofa_deploy.errors import UsageError
from ofa_deploy.space.weights import network_shapes
from ofa_deploy.supernet.supernet import Supernet

CLASSES = ("classifier.linear.weight", "classifier.linear.bias")


def inherit(supernet: Supernet, trained: Supernet) -> None:
    """Give a supernet's largest subnet the weights of another's, so that it computes the same.

    Kernel transforms that both have come along; others stay as they are. Where the numbers of classes differ, the last
    layer stays as it is too: that is how a network that was trained on other classes is taken over.

    Raises:
        UsageError: the largest subnets differ in anything else; names the first weight that does.
    """
    needed, given = ({**network_shapes(s.space.network(s.space.largest))} for s in (supernet, trained))
    if needed[CLASSES[1]] != given[CLASSES[1]]:
        needed, given = ({k: v for k, v in shapes.items() if k not in CLASSES} for shapes in (needed, given))
    if wrong := sorted(name for name in needed.keys() | given.keys() if needed.get(name) != given.get(name)):
        first = wrong[0]
        raise UsageError(
            f"the largest subnets of {supernet.space.name} and {trained.space.name} differ in {len(wrong)} weights, "
            f"first in {first}: {needed.get(first, 'absent')}, not {given.get(first, 'absent')}"
        )
    own = supernet.state_dict()
    taken = {name: value for name, value in trained.state_dict().items() if name in own and name not in CLASSES}
    taken |= {name: value for name, value in trained.state_dict().items() if name in needed}
    supernet.load_state_dict(taken, strict=False)
