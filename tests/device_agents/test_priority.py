import os
import subprocess
import sys

import pytest

from device_agents import priority
from device_agents.priority import high_priority

CODE = """
import os
from device_agents.priority import AUTOGROUP, high_priority
def now():
    group = int(open(AUTOGROUP).read().split()[-1]) if os.path.exists(AUTOGROUP) else None
    return os.getpriority(os.PRIO_PROCESS, 0), group
before = now()
with high_priority() as nice:
    inside = now()
assert now() == before, (before, now())
assert inside[0] == nice
print(nice, inside[1])
"""


def test_priority_is_raised_where_allowed_and_always_given_back():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr
    if os.geteuid():
        pytest.skip("raising the priority needs root")
    nice, group = done.stdout.split()
    assert nice == "-20"
    assert group in ("-20", "None")


def test_an_ordinary_user_measures_at_the_priority_there_is(monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(priority.os, "setpriority", refused)
    with high_priority() as nice:
        assert nice == os.getpriority(os.PRIO_PROCESS, 0)
