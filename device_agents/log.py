"""What the agent tells the person or the journal that reads its stderr."""

import sys


def log(message):
    """One line on stderr."""
    sys.stderr.write("ofa-agent: {}\n".format(" ".join(message.split())))
    sys.stderr.flush()
