"""What the timings of an item say: latency, tail, and how sure it is. Pure; the server uses it on what agents send."""

import math

NORMAL_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
MEDIAN_ERROR = 1.2533  # standard error of a normal sample's median over that of its mean: sqrt(pi / 2)
STRETCH = 5  # rounds in a row whose median is the sentinel's level for that stretch
ALIKE = 0.1  # by which an uninterrupted call's duration may differ from its processor time, on one core
BEST = 0.1  # share of an item's visits that are taken as undisturbed
ENOUGH = 5  # bursts that tell what those with as many context switches take
ALIKE_ITEMS = 9  # that tell what a context switch costs those of similar size


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
    """The rounds around which the sentinel was more than ``drift`` slower than in its best stretch of rounds.

    A round is judged by the stretch around it: what comes and goes faster than that meets all items alike in the
    shuffled rounds, and belongs to what this device is like.
    """
    width = min(STRETCH, len(levels))
    if not width:
        return []
    starts = range(len(levels) - width + 1)
    stretches = [median(levels[i : i + width]) for i in starts]
    around = [stretches[min(max(i - width // 2, 0), starts[-1])] for i in range(len(levels))]
    return [i for i, level in enumerate(around) if level > min(stretches) * (1 + drift)]


def used_rounds(levels, drift, enough):
    """The rounds that count, and whether the device throttled.

    Slow rounds are left out while ``enough`` others remain: something else disturbed the device, and went away. Where
    it did not go away, and most rounds are slow, slow is how this device is, and all rounds count.
    """
    slow = set(slow_rounds(levels, drift))
    clean = [i for i in range(len(levels)) if i not in slow]
    over = len(levels) - 1 not in slow
    if len(clean) >= enough and (over or len(clean) >= len(levels) / 2):
        return clean, False
    return list(range(len(levels))), True


def work(timings, cpu, switches, switch_ms=0.0):
    """What the bursts would have taken if none had waited for a core, ms, in the shape of ``timings``.

    A burst that kept its core is what was timed. Another one is taken to be its processor time, less what its context
    switches cost (``switch_ms`` of a call each), scaled by what an uninterrupted call takes beyond its processor time;
    but no less than the fast ones of those that kept their core take, where there are enough of them: what a switch
    costs differs from one to the next. Where that ratio is not about 1, the calls do not run on one core (several
    threads, or a GPU that the process waits for): their processor time says nothing, and the timing stands.
    """
    if not cpu:
        return timings
    bursts = [list(zip(*visit)) for visit in zip(timings, cpu, switches)]  # noqa: B905 - Python 3.6
    kept = [wall / spent for visit in bursts for wall, spent, lost in visit if not lost and spent > 0]
    ratio = median(kept) if len(kept) >= 3 else 1.0
    if not 1 - ALIKE <= ratio <= 1 + ALIKE:
        return timings
    unlost = [spent for visit in bursts for _, spent, lost in visit if not lost]
    enough = max(ENOUGH, BEST * sum(map(len, bursts)))
    least = percentile(unlost, BEST) if len(unlost) >= enough else 0.0

    def worked(wall, spent, lost):
        return min(wall, ratio * max(spent - switch_ms * lost, min(spent, least))) if lost else wall

    return [[worked(*burst) for burst in visit] for visit in bursts]


def switch_costs(items):
    """What a context switch adds to the processor time of a burst of each item, ms.

    Who gets a core back finds its data out of the caches and fetches it again. An item tells how long that takes if at
    least half of its bursts kept their core and enough of them lost it once. Every item is given the median of those
    whose bursts are about as long. An item that nearly always loses its core does not tell it: a burst of its that is
    longer for another reason loses it more often.

    Low quantiles are compared: what a switch costs differs from one to the next, and of bursts without their switches'
    usual cost the fastest would be too fast.

    Args:
        items: for each the calls in a burst, and the ``cpu`` and ``switches`` of its bursts.
    """
    works, told = [], []
    for calls, cpu, switches in items:
        bursts = [(calls * spent, lost) for visit in zip(cpu, switches) for spent, lost in zip(*visit)]  # noqa: B905
        kept, once = ([spent for spent, lost in bursts if lost == count] for count in (0, 1))
        works.append(max(median([spent for spent, _ in bursts]), 1e-6) if bursts else 1e-6)
        if len(once) >= ENOUGH and len(kept) >= max(ENOUGH, len(bursts) / 2):
            fast, slow = percentile(kept, BEST), percentile(once, BEST)
            told.append((works[-1], max(slow - fast, 0.0)))

    def nearest(work):
        ordered = sorted(told, key=lambda one: abs(math.log(one[0] / work)))
        return [cost for _, cost in ordered[:ALIKE_ITEMS]]

    return [median(nearest(work)) if told else 0.0 for work in works]


def undisturbed(timings):
    """A low quantile over visits of their fastest bursts, and its relative standard error; see ``summarise``.

    Neighbours on a shared machine make it slower for milliseconds to seconds at a time, by a third and more, so that
    medians repeat themselves within 5 % where this quantile does within 1 %. The error is that of an order statistic:
    sqrt(q (1 - q) / n) over the density, which is taken from the quantiles around it.
    """
    fastest = [min(bursts) for bursts in timings]
    best = percentile(fastest, BEST)
    slope = (percentile(fastest, 2 * BEST) - min(fastest)) / (2 * BEST)
    return best, slope * math.sqrt(BEST * (1 - BEST) / len(fastest)) / best


def summarise(timings, used, cpu=(), switches=(), switch_ms=0.0):
    """Statistics of one item over the used rounds; ``timings[round]`` are milliseconds per call, one per burst.

    ``p50`` is the median over rounds of in-round medians, ``se`` its relative standard error; ``p90``, ``p99`` and
    ``cov`` (standard deviation over mean) are of all ``n`` bursts. ``best`` is what the item costs while nothing else
    disturbs the device, and ``best_se`` its relative standard error; ``p50 / best`` shows how busy the device was.

    Where processor time and context switches of the bursts are known, ``best`` is of their work (see ``work``, also for
    ``switch_ms``). ``work_ms`` is the median of that, and ``waiting_ms`` what ``p50`` has beyond it: waiting for a
    core.
    """
    rounds = [median(timings[i]) for i in used]
    bursts = [value for i in used for value in timings[i]]
    mean = sum(bursts) / len(bursts)
    variance = sum((value - mean) ** 2 for value in bursts) / max(len(bursts) - 1, 1)
    chosen = [[part[i] for i in used] if part else [] for part in (timings, cpu, switches)]
    working = work(*chosen, switch_ms)
    best, best_error = undisturbed(working)
    found = {
        "rounds": rounds,
        "p50": median(rounds),
        "best": best,
        "best_se": best_error,
        "p90": percentile(bursts, 0.90),
        "p99": percentile(bursts, 0.99),
        "n": len(bursts),
        "cov": math.sqrt(variance) / mean,
        "se": relative_error(rounds),
    }
    if cpu:
        worked = median([median(bursts) for bursts in working])
        found.update(work_ms=worked, waiting_ms=max(found["p50"] - worked, 0.0))
    return found
