"""Results on their way to the server: on disk until it has them, so that neither an outage nor a reboot loses one.

An agent asks for new work only when its spool is empty, which bounds it.
"""

import os

from device_agents import files
from device_agents.log import log

SUFFIX = ".json"


class Spool:
    """A folder of results, each named by its run.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder):
        self._folder = folder
        self._unsaved = {}  # results for which the disk had no room
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def keep(self, run, result):
        """Keep a result until ``drop``; in memory where the disk does not take it."""
        try:
            files.write_json(self._path(run), result)
        except OSError as error:
            log("cannot write to {}: {}; the result is kept in memory".format(self._folder, error.strerror))
            self._unsaved[run] = result

    def runs(self):
        """The runs whose results are kept, the oldest first."""
        names = [name for name in os.listdir(self._folder) if name.endswith(SUFFIX)]
        names.sort(key=lambda name: os.path.getmtime(os.path.join(self._folder, name)))
        return [name[: -len(SUFFIX)] for name in names] + sorted(self._unsaved)

    def load(self, run):
        """The result of a run; empty where the file is damaged."""
        return self._unsaved[run] if run in self._unsaved else files.read_json(self._path(run))

    def drop(self, run):
        """The server has the result, or will never want it."""
        self._unsaved.pop(run, None)
        files.remove(self._path(run))

    def _path(self, run):
        return os.path.join(self._folder, run + SUFFIX)
