"""Dividing a job into chunks that fit into a device's memory."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from ofa_deploy.fleet.device_facts import DeviceFacts
from ofa_deploy.json_types import JSON

MAX_ITEMS = 600
MAX_BYTES = 256 * 2**20  # of models, on a device that does not say how much memory it has
SHARE = 8  # of the memory of one that does; a runtime needs about twice the models' bytes when they are open

ItemT = TypeVar("ItemT")


def models_at_once(facts: Mapping[str, JSON]) -> int:
    """How many bytes of models a device can hold open, by what it says of itself."""
    memory = DeviceFacts.read(facts).memory_mb
    return int(memory * 1e6 / SHARE) if memory is not None and memory > 0 else MAX_BYTES


def split(
    items: Sequence[ItemT],
    sizes: Sequence[int],
    networks: Sequence[bool],
    max_items: int = MAX_ITEMS,
    max_bytes: int = MAX_BYTES,
) -> list[list[ItemT]]:
    """Deal items out to as few chunks as the limits allow.

    Whole networks and blocks are each spread evenly, in a shuffled order that is always the same, so that every chunk
    holds a fair sample: what a chunk's moment does to its rows then does not follow the blocks' sizes.

    Args:
        sizes: bytes of every item's model.
        networks: whether each item is a whole network.
    """
    count = max(math.ceil(len(items) / max_items), math.ceil(sum(sizes) / max_bytes), 1)
    order = list(range(len(items)))
    random.Random(len(items)).shuffle(order)  # noqa: S311
    chunks: list[list[ItemT]] = [[] for _ in range(min(count, len(items)))]
    for turn, i in enumerate(sorted(order, key=lambda i: not networks[i])):
        chunks[turn % len(chunks)].append(items[i])
    return chunks
