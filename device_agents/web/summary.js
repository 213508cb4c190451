// What timings say while they are taken: the part of device_agents/summary.py that decides when measuring may stop.

const NORMAL_MAD = 1.4826; // standard deviation of a normal distribution over its median absolute deviation
const MEDIAN_ERROR = 1.2533; // standard error of a normal sample's median over that of its mean: sqrt(pi / 2)
const STRETCH = 5; // rounds in a row whose median is the sentinel's level for that stretch

/** The middle value, or the mean of the two in the middle. */
export function median(values) {
  const ordered = [...values].sort((a, b) => a - b);
  const middle = Math.floor(ordered.length / 2);
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

/** Standard error of the median of per-round levels, as a share of it; infinite with fewer than 3 rounds. */
export function relativeError(levels) {
  if (levels.length < 3) return Infinity;
  const middle = median(levels);
  const spread = NORMAL_MAD * median(levels.map((level) => Math.abs(level - middle)));
  return (MEDIAN_ERROR * spread) / Math.sqrt(levels.length) / middle;
}

/** One level per round from the sentinel's visits at its start, middle and end: `visits[round][visit][timing]`. */
export function sentinelLevels(visits) {
  return visits.map((ofRound) => median(ofRound.map(median)));
}

/** The rounds around which the sentinel was more than `drift` slower than in its best stretch of rounds. */
export function slowRounds(levels, drift) {
  const width = Math.min(STRETCH, levels.length);
  if (!width) return [];
  const last = levels.length - width;
  const stretches = Array.from({ length: last + 1 }, (_, i) => median(levels.slice(i, i + width)));
  const best = Math.min(...stretches);
  const around = (i) => stretches[Math.min(Math.max(i - Math.floor(width / 2), 0), last)];
  return levels.map((_, i) => i).filter((i) => around(i) > best * (1 + drift));
}
