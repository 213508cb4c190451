import subprocess
import sys

import pytest

from device_agents.lock import measuring_lock

HOLDER = """
import sys
from device_agents.lock import measuring_lock
with measuring_lock(sys.argv[1], lambda: None):
    print("held", flush=True)
    sys.stdin.readline()
"""


class TooLong(Exception):
    pass


def test_a_second_measurement_waits_until_the_first_is_gone_even_when_it_was_killed(tmp_path):
    path = str(tmp_path / "lock")
    command = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        waits = []

        def waiting():
            waits.append(1)
            if len(waits) == 2:
                holder.kill()
            if len(waits) > 100:
                raise TooLong

        with measuring_lock(path, waiting):
            assert len(waits) >= 2


def test_a_wait_can_be_given_up_and_leaves_nothing_locked(tmp_path):
    path = str(tmp_path / "lock")

    def waiting():
        raise TooLong

    with measuring_lock(path, waiting), pytest.raises(TooLong), measuring_lock(path, waiting):
        pass
    with measuring_lock(path, waiting):
        pass


def test_no_path_no_lock():
    with measuring_lock(None, None):
        pass
