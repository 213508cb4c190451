"""Ways to search, all behind ask and tell.

A strategy is a generator: it yields subnets that it wants to know about, and finds them in the setting's memory when it
goes on. What it yields may be infeasible or known already; it ends when it has nothing more to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ofa_deploy.errors import UsageError
from ofa_deploy.search.setting import Setting
from ofa_deploy.search.strategies.differentiable import differentiable
from ofa_deploy.search.strategies.evolution import evolution
from ofa_deploy.search.strategies.exact import exact
from ofa_deploy.search.strategies.guided import guided
from ofa_deploy.search.strategies.nsga2 import nsga2
from ofa_deploy.search.strategies.random_sampling import sampling
from ofa_deploy.search.strategies.regularized import regularized
from ofa_deploy.search.strategies.reinforce import reinforce
from ofa_deploy.space import Population

STRATEGIES: dict[str, Callable[[Setting], Iterator[Population]]] = {
    "evolution": evolution,
    "exact": exact,
    "nsga2": nsga2,
    "predictor-guided": guided,
    "random": sampling,
    "regularized": regularized,
    "reinforce": reinforce,
    "differentiable": differentiable,
}


def find_strategy(name: str) -> Callable[[Setting], Iterator[Population]]:
    """A strategy by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in STRATEGIES:
        raise UsageError(f"there is no strategy {name!r}; there are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
