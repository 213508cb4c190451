"""A worker whose runtime has every fault: what an item's key says is what its model does."""

import os
import sys
import time

from device_agents import runtimes, worker
from device_agents.facts import power_mode

CALL_S = 0.0002


class Runtime:
    real = True

    def __init__(self, asked):
        self.facts = {}
        self.condition = dict(asked, runtime_version="1", simulated=False, power_mode=power_mode())

    def load(self, item, fetch):
        FAULTS.get(item["key"], lambda: None)()
        if item["key"].startswith("fetch"):
            assert fetch()
        return Session(item["key"])


class Session:
    def __init__(self, key):
        self.key, self.calls = key, 0

    def run(self):
        self.calls += 1
        if self.calls > 5:
            FAULTS.get(self.key.replace("later-", ""), lambda: None)()
        time.sleep(CALL_S)


def open_runtime(asked, seed):
    FAULTS.get(asked["provider"], lambda: None)()
    return Runtime(asked)


def eat():
    eaten = []
    while True:
        eaten.append(bytearray(20 * 2**20))
        time.sleep(0.02)


def refuse():
    raise ValueError("no such\nkernel")


FAULTS = {
    "abort": os.abort,
    "exit": lambda: os._exit(7),
    "hang": lambda: time.sleep(60),
    "eat": eat,
    "killed": lambda: os.kill(os.getpid(), 9),
    "raise": refuse,
    "print": lambda: os.write(1, b"what a library prints\n"),
    "refused": lambda: (_ for _ in ()).throw(runtimes.RuntimeRefused("not here")),
}

if __name__ == "__main__":
    sys.modules["faulty_worker"] = sys.modules["__main__"]
    runtimes.MODULES["faulty"] = "faulty_worker"
    worker.main()
