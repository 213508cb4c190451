"""What TensorRT tells of an engine's layers: how long each takes, and what the builder made of it."""

import json

INSPECTED_BYTES = 2**18  # of the inspector's answer, beyond which only what a layer is and its tactic are kept
SHORT = ("Name", "LayerType", "TacticName")


def engine_details(profile, inspected):
    """Of what ``--exportProfile`` and ``--exportLayerInfo`` wrote, or the Python API's inspector says.

    Returns:
        ``{"layers": [{"name", "ms", "share"}], "inspector": {"Layers": …}}``: the mean milliseconds of each layer, its
        fraction of all, and the inspector's JSON; what cannot be read is left out.
    """
    found = {"layers": read_profile(profile), "inspector": read_inspector(inspected)}
    return {name: value for name, value in found.items() if value}


def read_profile(text):
    """``[{"count": n}, {"name", "timeMs", "averageMs", "percentage"}, …]`` as layers; newer medians go unread."""
    try:
        entries = [entry for entry in json.loads(text) if "averageMs" in entry]
        times = [(str(entry["name"]), float(entry["averageMs"])) for entry in entries]
    except (ValueError, TypeError, KeyError):
        return []
    return layer_shares(times)


def layer_shares(times):
    """Layers of ``(name, ms)`` pairs; nothing where a time is negative or no number."""
    total = sum(ms for _, ms in times)
    if not 0 < total < float("inf") or min(ms for _, ms in times) < 0:
        return []
    return [{"name": name, "ms": ms, "share": ms / total} for name, ms in times]


def read_inspector(text):
    """The inspector's JSON; a long one with the layers' names, types and tactics alone; None if it is none."""
    try:
        found = json.loads(text)
        layers = found["Layers"]
    except (ValueError, TypeError, KeyError):
        return None
    if len(text) <= INSPECTED_BYTES:
        return found
    return {"Layers": [layer if isinstance(layer, str) else _short(layer) for layer in layers]}


def _short(layer):
    return {name: layer[name] for name in SHORT if name in layer}
