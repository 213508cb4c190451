"""The command line of an agent: ``python3 ofa-agent.pyz --server URL --code CODE``."""

import argparse
import os
import shutil
import sys

from device_agents import VERSION
from device_agents.agent import Agent, Stopped
from device_agents.enrolment import CannotStart, enrolled_server, new_code_needed
from device_agents.http import Refused
from device_agents.lock import host_lock
from device_agents.log import log
from device_agents.runtimes import PHONE, RuntimeRefused
from device_agents.runtimes.adb import BINARY, Phone
from device_agents.runtimes.engines import FOLDER as ENGINES
from device_agents.state import DEFAULT, State, StateBusy

EXAMPLE = """example, the first time:  python3 ofa-agent.pyz --server https://fleet.example:8800 --code CODE
later, after a reboot:    python3 ofa-agent.pyz

Proxies are taken from the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)."""


def parse(arguments, name):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=name,
        description="Measures models on this device for an ofa-deploy server.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--server", metavar="URL", help="of the server; later starts know it")
    parser.add_argument("--code", help="one-time code that `ofa-deploy device register` has printed; or in OFA_CODE")
    parser.add_argument(
        "--state", metavar="DIR", default=DEFAULT, help="what this agent remembers  [{}]".format(DEFAULT)
    )
    parser.add_argument("--ca", metavar="FILE", help="certificates (PEM) to trust for https; or in OFA_CA_FILE")
    parser.add_argument("--once", action="store_true", help="end when there is no work")
    parser.add_argument("--lock", metavar="FILE", help="held locked while timing  [one for all agents on this machine]")
    parser.add_argument("--adb", metavar="SERIAL", help="measure the Android phone on this machine's cable")
    parser.add_argument("--adb-binary", metavar="FILE", help="onnxruntime_perf_test for the phone, to be copied there")
    parser.add_argument("--queue", default="", help="take only a command's own work")
    parser.add_argument(
        "--parent", type=int, metavar="PID", help="end with this process, which started the agent, and leave no state"
    )
    parser.add_argument("--version", action="version", version=VERSION)
    return parser.parse_args(arguments)


def main(arguments=None, name="ofa-agent"):
    """Run an agent. Exit codes: 0 stopped, 1 refused by the server, 2 wrong usage."""
    options = parse(arguments, name)
    try:
        state = State(options.state)
    except StateBusy as error:
        log(str(error))
        return 1
    except OSError as error:
        log("cannot write to {}: {}; give another folder with --state".format(options.state, error.strerror))
        return 2
    try:
        return run(state, options)
    finally:
        state.close()
        if options.parent is not None:
            shutil.rmtree(state.folder, ignore_errors=True)


def run(state, options):
    """Enrol if necessary, and work."""
    phone = drive_phone(options.adb, options.adb_binary)
    if options.parent is None:  # else the folder ends with the agent
        os.environ.setdefault(ENGINES, state.path("engines"))
    lock = options.lock or host_lock(options.adb or "")
    agent = Agent(state, options.queue, lock, options.parent, options.once, facts=phone and phone.facts)
    agent.install_signals()
    try:
        code = options.code or os.environ.get("OFA_CODE")
        server = enrolled_server(state, options.server, code, options.ca, agent.persist, agent.facts)
        log("{} works for {}".format(state.identity["device"], server.url))
        agent.loop(server)
    except Stopped:
        return 0
    except (CannotStart, RuntimeRefused) as error:
        log(str(error))
        return 2
    except OSError as error:
        log("cannot write to {}: {}".format(state.folder, error.strerror or error))
        return 1
    except Refused as error:
        log(new_code_needed(server.url, state.identity["device"], error))
        return 1
    return 0


def drive_phone(serial, binary):
    """The phone that is to be measured, which the workers then find in their environment; None for this machine."""
    if serial is None:
        return None
    os.environ[PHONE] = serial
    if binary:
        os.environ[BINARY] = os.path.abspath(binary)
    return Phone()


if __name__ == "__main__":
    sys.exit(main())
