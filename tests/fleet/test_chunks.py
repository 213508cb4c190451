from ofa_deploy.fleet.chunks import MAX_BYTES, models_at_once, split


def test_a_small_job_is_one_chunk():
    assert [sorted(chunk) for chunk in split(range(10), [1] * 10, [False] * 10)] == [list(range(10))]


def test_limits_hold_and_networks_and_blocks_are_spread_evenly():
    networks = [i % 5 == 0 for i in range(100)]
    chunks = split(range(100), [10] * 100, networks, max_items=30, max_bytes=10**9)
    assert sorted(item for chunk in chunks for item in chunk) == list(range(100))
    assert [len(chunk) for chunk in chunks] == [25] * 4
    assert [sum(networks[i] for i in chunk) for chunk in chunks] == [5] * 4
    assert len(split(range(100), [10] * 100, networks, max_items=1000, max_bytes=400)) == 3
    assert chunks == split(range(100), [10] * 100, networks, max_items=30, max_bytes=10**9)


def test_an_item_larger_than_the_limit_gets_its_chunk():
    assert sorted(map(len, split(["a", "b"], [100, 100], [True, True], max_bytes=10))) == [1, 1]


def test_a_device_gets_as_much_at_once_as_it_has_memory_for():
    assert models_at_once({"memory_mb": 4000}) == 500_000_000
    assert [models_at_once(facts) for facts in ({}, {"memory_mb": None}, {"memory_mb": "much"})] == [MAX_BYTES] * 3
