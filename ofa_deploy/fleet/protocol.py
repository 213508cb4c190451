"""The measurement protocol's settings, as the host validates them; ``device_agents.protocol`` says how it works."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ofa_deploy.config import Document


class Protocol(Document):
    """Settings of the measurement rounds; they do not change, and are stored with every row.

    Attributes:
        rounds_min: rounds without a slow stretch that are needed before measuring may stop.
        rounds_max: rounds after which measuring stops.
        min_s: measuring a chunk lasts at least this many seconds, so that one busy moment is not all that it sees.
        timings: timed bursts of an item in a round.
        burst_ms: a burst repeats the call until it takes this long, or 1000 times the timer's resolution.
        visit_ms: items for which the series would take longer are timed less often, but at least twice a round. Where
            3 rounds would otherwise not end within ``cap_s``, it is shorter.
        se: measuring stops when every item's relative standard error is below this fraction.
        cap_s: measuring a chunk stops after this many seconds of rounds, but not before 3 rounds.
        warmup_ms: how long an item is called before the first round.
        warmup_calls: how often an item is called before the first round, at least.
        drift: a round is slow when its sentinel is this fraction slower than in the best stretch of rounds.
        seed: of the order in the rounds, and of the inputs.
    """

    rounds_min: Annotated[int, Field(ge=3, le=1000)] = 12
    rounds_max: Annotated[int, Field(ge=3, le=10000)] = 120
    min_s: Annotated[float, Field(ge=0, le=3600)] = 3.0
    timings: Annotated[int, Field(ge=2, le=1000)] = 6
    burst_ms: Annotated[float, Field(gt=0, le=1000)] = 0.5
    visit_ms: Annotated[float, Field(gt=0, le=1e6)] = 200.0
    se: Annotated[float, Field(gt=0, lt=1)] = 0.01
    cap_s: Annotated[float, Field(gt=0, le=86400)] = 120.0
    warmup_ms: Annotated[float, Field(ge=0, le=1e5)] = 5.0
    warmup_calls: Annotated[int, Field(ge=1, le=1000)] = 3
    drift: Annotated[float, Field(gt=0, le=10)] = 0.12
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
