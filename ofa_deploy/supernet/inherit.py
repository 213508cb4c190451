"""A supernet that starts from trained weights."""

from __future__ import annotations

from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.supernet.supernet import Supernet

CLASSES = ("classifier.linear.weight", "classifier.linear.bias")
PLACE = ("h", "w")  # of a block's input: no weight depends on it


def inherit(supernet: Supernet, trained: Supernet) -> None:
    """Give a supernet's largest subnet the weights of another's, so that it computes the same.

    Kernel transforms that both have come along; others stay as they are. Expanded channels are sorted by importance, so
    that narrow blocks start with the best ones; the trained one's own subnets compute the same, but for rounding. Where
    the numbers of classes differ, the last layer stays as it is: that is how a network of other classes is taken over.

    Raises:
        UsageError: the largest subnets differ in anything else; names the first field that does.
    """
    needed, given = _largest(supernet), _largest(trained)
    as_many = needed.pop("classifier.cout") == given.pop("classifier.cout")
    if wrong := [name for name in {**needed, **given} if needed.get(name) != given.get(name)]:
        first = wrong[0]
        raise UsageError(
            f"the largest subnets of {supernet.space.name} and {trained.space.name} differ in {len(wrong)} fields, "
            f"first in {first}: {needed.get(first, 'absent')}, not {given.get(first, 'absent')}"
        )
    own = supernet.state_dict().keys() if as_many else supernet.state_dict().keys() - set(CLASSES)
    supernet.load_state_dict({k: v for k, v in trained.state_dict().items() if k in own}, strict=False)
    supernet.sort_channels(trained.space)


def _largest(supernet: Supernet) -> dict[str, JSON]:
    """Every field of every block of the largest subnet."""
    network = supernet.space.network(supernet.space.largest)
    return {
        f"{name}.{field}": value
        for name, op in zip(network.names, network.ops, strict=True)
        for field, value in op.to_json().items()
        if field not in PLACE
    }
