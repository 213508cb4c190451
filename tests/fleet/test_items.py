from dataclasses import replace

import pytest

from ofa_deploy.fleet import MeasureItem
from ofa_deploy.fleet.items import choose_sentinels


def test_sentinels_are_blocks_of_middling_size(make_items):
    items = make_items(9)  # from the smallest to the largest
    assert [items.index(item) for item in choose_sentinels(items[::-1])] == [4, 3, 5, 2, 6]
    assert choose_sentinels(items[:1]) == items[:1]


def test_the_smallest_network_is_the_sentinel_where_there_are_no_blocks(make_items):
    networks = [replace(item, kind="network") for item in make_items(4)]
    assert choose_sentinels(networks[::-1], 2) == networks[:2]
    blocks = make_items(2)
    assert choose_sentinels([*networks, *blocks], 9) == [blocks[1], blocks[0]]


def test_choosing_among_many_compares_no_item_with_every_other(make_items, monkeypatch):
    items = make_items(9) * 200
    monkeypatch.setattr(MeasureItem, "__eq__", lambda *_: pytest.fail("an item was looked for among all"))
    assert len(choose_sentinels(items)) == 5
