"""Model files that were fetched before: a folder of bounded size, which a full disk only makes useless."""

import hashlib
import os
import shutil

from device_agents import files
from device_agents.log import log

CACHE_BYTES = 256 * 2**20
FREE_SHARE = 0.5  # of the disk's free space, at most


class Models:
    """Models by their sha256.

    Args:
        folder: where they are kept.
        fetch: function from a sha256 to the model's bytes.
        limit: bytes that the folder may hold.
    """

    def __init__(self, folder, fetch, limit=CACHE_BYTES):
        self._folder = folder
        self._fetch = fetch
        self._limit = limit

    def get(self, sha256):
        """A model's bytes, from the folder or from the server."""
        kept = self._read(sha256)
        if kept is not None:
            return kept
        model = self._fetch(sha256)
        try:
            self._keep(sha256, model)
        except OSError as error:
            log("cannot keep models in {}: {}; going on without".format(self._folder, error.strerror))
        return model

    def _read(self, sha256):
        path = os.path.join(self._folder, sha256)
        try:
            with open(path, "rb") as file:
                model = file.read()
            os.utime(path)  # the longest unused go first
        except OSError:
            return None
        return model if hashlib.sha256(model).hexdigest() == sha256 else None

    def _keep(self, sha256, model):
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        room = min(self._limit, shutil.disk_usage(self._folder).free * FREE_SHARE)
        if len(model) <= room:
            self._make_room(self._limit - len(model))
            files.write(os.path.join(self._folder, sha256), model, durable=False)

    def _make_room(self, bound):
        """Delete the longest unused until the rest is within a bound."""
        paths = [os.path.join(self._folder, name) for name in os.listdir(self._folder)]
        sizes = {path: os.path.getsize(path) for path in sorted(paths, key=os.path.getmtime)}
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total <= bound:
                return
            files.remove(path)
            total -= size
