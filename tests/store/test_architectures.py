"""The architecture database's contract, over both databases."""

import threading

import pytest

from ofa_deploy.errors import UsageError
from ofa_deploy.store import ArchFacts, Store


def network(key, device="phone", threads=1, p50=1.5, at="2026-01-01T00:00:00Z"):
    numbers = {"p50": p50, "p90": 2.0, "p99": 3.0, "se": 0.01}
    condition = {"threads": threads}
    return {"device": device, "kind": "network", "key": key, "condition": condition, "measured_at": at, **numbers}


def arch(number):
    return {"space": "s", "depths": [number]}


def test_what_is_evaluated_is_an_architecture(store):
    store.add_evaluation("net", arch(2), "aa", 0.5, 100, "valid", "fit")
    store.add_evaluation("net", arch(2), "aa", 0.75, 100, "valid", "fit")
    found = store.architectures.one("a")
    assert (found.key, found.space, found.arch, found.macs) == ("aa", "s", arch(2), None)
    assert [(e.accuracy, e.state, e.weights) for e in found.evaluations] == [(0.75, "one-shot", "net")]


def test_weights_in_other_states_stand_beside_the_inherited_ones(store):
    store.add_evaluation("net", arch(2), "aa", 0.5, 100, "valid", "fit")
    store.add_evaluation("net", arch(2), "aa", 0.6, 100, "valid", "finalist", "fine-tuned", "f1")
    store.add_evaluation("net", arch(2), "aa", 0.7, 100, "valid", "finalist", "fine-tuned", "f2")
    store.add_evaluation("net", arch(3), "bb", 0.4, 100, "valid", "fit")
    assert [e.accuracy for e in store.evaluations("net", "valid")] == [0.5, 0.4]
    assert [e.accuracy for e in store.evaluations("net", "valid", "fine-tuned")] == [0.6, 0.7]
    assert [a.key for a in store.architectures.find(state="fine-tuned")] == ["aa"]
    assert store.architectures.find(state="scratch") == []


def test_what_was_unknown_is_filled_in_and_nothing_else_changes(store):
    store.architectures.add([ArchFacts("aa", arch(2))])
    store.architectures.add([ArchFacts("aa", arch(9), network="n", macs=5_000_000_000, params=7)])
    store.architectures.add([ArchFacts("aa", arch(2), macs=1)])
    (found,) = store.architectures.find()
    assert (found.arch, found.network, found.macs, found.params) == (arch(2), "n", 5_000_000_000, 7)


def test_the_newest_latency_of_every_device_and_condition_and_the_bundles(store):
    store.architectures.add([ArchFacts("aa", arch(2), network="n"), ArchFacts("bb", arch(3))])
    store.add_measurements(
        [network("n"), network("n", p50=1.25), network("n", threads=4, p50=0.5), network("n", "pi", p50=9.0)]
    )
    store.add_measurements([{**network("n"), "kind": "op", "p50": 77.0}, network("other")])
    store.add_artefact("bundle", "bundles/x", "aa", {"target": "pi"})
    store.add_artefact("label", "labels/x", "aa", {})
    first, second = store.architectures.find(space="s")
    assert [(m.device, m.condition["threads"], m.p50) for m in first.measurements] == [
        ("phone", 1, 1.25),
        ("phone", 4, 0.5),
        ("pi", 1, 9.0),
    ]
    assert [(b.path, b.meta["target"]) for b in first.bundles] == [("bundles/x", "pi")]
    assert (second.measurements, second.bundles, second.evaluations) == ((), (), ())
    assert store.architectures.find(space="other") == []


def test_a_key_is_named_by_its_beginning(store):
    store.architectures.add([ArchFacts("abc1", arch(1)), ArchFacts("abd2", arch(2))])
    assert store.architectures.one("ABD").arch == arch(2)
    with pytest.raises(UsageError, match=r"several .* abc1, abd2"):
        store.architectures.one("ab")
    for unknown in ("x", "%", "a_c"):
        with pytest.raises(UsageError, match="arch list"):
            store.architectures.one(unknown)


def test_concurrent_writers_of_the_same_rows(database):
    failed = []

    def write(number):
        store = Store(database)
        try:
            for i in range(10):
                store.architectures.add([ArchFacts(f"k{i}", arch(i), macs=i)])
                store.add_evaluation("net", arch(i), f"k{i}", number / 10, 10, "valid", "fit")
        except Exception as error:
            failed.append(error)
        finally:
            store.close()

    Store(database).close()
    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = Store(database)
    assert failed == []
    assert store.architectures.count() == len(store.evaluations("net", "valid")) == 10
    store.close()
