"""``python -m device_agents --server URL --device NAME``; the token is in ``OFA_TOKEN``."""

import argparse
import os
import sys

from device_agents import VERSION
from device_agents.agent import Agent, log
from device_agents.http import Refused, Server


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(prog="ofa-agent", description="Measures models on this device for a server.")
    parser.add_argument("--server", required=True, help="URL of the ofa-deploy server")
    parser.add_argument("--device", required=True, help="this device's name there")
    parser.add_argument("--queue", default="", help="take work of this queue only")
    parser.add_argument("--lock", help="file to hold locked while measuring")
    parser.add_argument("--parent", type=int, help="end when this process, which started the agent, ends")
    parser.add_argument("--version", action="version", version=VERSION)
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run an agent. Exit codes: 0 stopped, 1 refused by the server, 2 wrong usage."""
    options = parse(arguments)
    token = os.environ.get("OFA_TOKEN")
    if not token:
        log("put the server's token in the environment variable OFA_TOKEN")
        return 2
    try:
        agent = Agent(Server(options.server, token), options.queue, options.lock, options.parent)
    except ValueError as error:
        log(str(error))
        return 2
    agent.install_signals()
    try:
        agent.loop()
    except Refused as error:
        log("{} refuses this agent: {}".format(options.server, error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
