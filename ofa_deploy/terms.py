"""What can be asked of a search, as plain data: the keys of documents and the options of commands are made of it.

Nothing is imported here that takes time, because `--help` shows the options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Statistic = Literal["p50", "p90", "p99"]
Relaxation = Literal["binary", "gumbel", "softmax"]
STRATEGY_NAMES: Final = (
    "evolution",
    "exact",
    "nsga2",
    "predictor-guided",
    "random",
    "regularized",
    "reinforce",
    "differentiable",
)


@dataclass(frozen=True)
class Term:
    """A value that a user gives.

    Attributes:
        kind: its type.
        meaning: what it is, in a sentence; with its unit.
        default: what holds where it is not given; None: nothing.
        above, least, below: the range: greater than, at least, less than.
        choices: the only texts that are allowed; empty for any.
    """

    kind: type[float | int | str | bool]
    meaning: str
    default: float | str | bool | None = None
    above: float | None = None
    least: int | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """What a value must be, to follow "X must"."""
        if self.choices:
            return f"be one of {', '.join(self.choices)}"
        if self.below is not None:
            return f"lie between {self.above:g} and {self.below:g}"
        return "be a positive number" if self.above == 0 else f"be {self.least} or a larger number"


BOUNDS: Final = {
    "max_ms": Term(float, "Latency budget in milliseconds.", above=0),
    "max_macs": Term(float, "Maximum number of multiply-accumulates, for example 2e6.", above=0),
    "max_params": Term(float, "Maximum number of parameters.", above=0),
    "max_memory_mb": Term(float, "Maximum memory for weights and live activations, in MB (1e6 bytes).", above=0),
    "max_energy_mj": Term(
        float, "Maximum energy in millijoules. Not available yet: no runtime measures energy.", above=0
    ),
    "max_layers": Term(float, "Maximum number of blocks, with stem, head and classifier.", above=0),
    "max_large_kernels": Term(float, "Maximum number of blocks with a kernel larger than 5×5.", least=0),
    "min_macs": Term(float, "Minimum number of multiply-accumulates.", above=0),
    "min_params": Term(float, "Minimum number of parameters.", above=0),
}
CONSTRAINTS: Final = {
    "statistic": Term(str, "Latency percentile that the budget limits.", "p50", choices=get_args(Statistic)),
    "confidence": Term(
        float, "Probability with which the predicted latency must stay within the budget.", 0.95, above=0, below=1
    ),
    **BOUNDS,
}
PLAN: Final = {
    "strategy": Term(str, f"Search strategy: {', '.join(STRATEGY_NAMES)}.", "evolution"),
    "time_limit": Term(float, "Stop the search after this many seconds.", above=0),
    "evaluations": Term(int, "Stop the search after this many subnets.", least=1),
    "population": Term(int, "Number of subnets that the strategy keeps, or proposes at a time.", least=2),
    "relaxation": Term(
        str, "How the strategy differentiable relaxes discrete choices.", "binary", choices=get_args(Relaxation)
    ),
    "gradient_steps": Term(
        int, "Gradient steps of the strategy differentiable; each uses one batch.", default=200, least=1
    ),
    "train_weights": Term(
        bool, "With the strategy differentiable: also train a copy of the supernet's weights.", default=False
    ),
}
TERMS: Final = {**CONSTRAINTS, **PLAN}
