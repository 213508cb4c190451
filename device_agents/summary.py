"""What the timings of an item say: latency, tail, and how sure it is. Pure; the server uses it on what agents send."""

import math

NORMAL_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
MEDIAN_ERROR = 1.2533  # standard error of a normal sample's median over that of its mean: sqrt(pi / 2)
STRETCH = 5  # rounds in a row whose median is the sentinel's level for that stretch


def median(values):
    """The middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values, share):
    """The value below which a share (0 to 1) of the values lies, with linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def relative_error(levels):
    """Standard error of the median of per-round levels, as a share of it; robust, from the absolute deviations.

    Infinite with fewer than 3 rounds: they say nothing about their spread.
    """
    if len(levels) < 3:
        return math.inf
    middle = median(levels)
    spread = NORMAL_MAD * median([abs(level - middle) for level in levels])
    return MEDIAN_ERROR * spread / math.sqrt(len(levels)) / middle


def sentinel_levels(visits):
    """One level per round from the sentinel's visits at its start, middle and end: ``[round][visit][timing]``."""
    return [median([median(timings) for timings in of_round]) for of_round in visits]


def slow_rounds(levels, drift):
    """The rounds in which the sentinel was more than ``drift`` slower than in its best stretch of rounds."""
    width = min(STRETCH, len(levels))
    if not width:
        return []
    best = min(median(levels[i : i + width]) for i in range(len(levels) - width + 1))
    return [i for i, level in enumerate(levels) if level > best * (1 + drift)]


def used_rounds(levels, drift, enough):
    """The rounds that count, and whether the device throttled.

    Slow rounds are left out while ``enough`` others remain; with fewer, slow is how this device is: all rounds count.
    """
    slow = set(slow_rounds(levels, drift))
    clean = [i for i in range(len(levels)) if i not in slow]
    if len(clean) >= enough:
        return clean, False
    return list(range(len(levels))), True


def summarise(timings, used):
    """Statistics of one item over the used rounds; ``timings[round]`` are milliseconds per call, one per burst.

    ``p50`` is the median over rounds of in-round medians, ``se`` its relative standard error; ``best`` is the median
    over rounds of the fastest bursts: what the item costs when nothing else runs, so that ``p50 / best`` shows how
    busy the device was; ``p90``, ``p99`` and ``cov`` (standard deviation over mean) are of all ``n`` bursts.
    """
    rounds = [median(timings[i]) for i in used]
    bursts = [value for i in used for value in timings[i]]
    mean = sum(bursts) / len(bursts)
    variance = sum((value - mean) ** 2 for value in bursts) / max(len(bursts) - 1, 1)
    return {
        "rounds": rounds,
        "p50": median(rounds),
        "best": median([min(timings[i]) for i in used]),
        "p90": percentile(bursts, 0.90),
        "p99": percentile(bursts, 0.99),
        "n": len(bursts),
        "cov": math.sqrt(variance) / mean,
        "se": relative_error(rounds),
    }
