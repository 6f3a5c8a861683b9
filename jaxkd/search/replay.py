"""An optimiser on candidates that were measured before: how soon it would have had the best."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxkd.models import families
from jaxkd.search.optimisers import Optimiser, Outcome
from jaxkd.search.space import Candidate, Space, config_of


def measured_space(
    teacher: families.Config,
    choices: Mapping[str, tuple[Any, ...]],
    measured: list[Candidate],
) -> Space:
    """The space of `choices` in which only what was measured is a candidate.

    Raises:
      ValueError: as `Space`.
    """
    known = [config_of(teacher, candidate) for candidate in measured]

    def allows(config: families.Config) -> None:
        if config not in known:
            raise ValueError("not measured")

    return Space(teacher, choices, allows=allows)


def replay(
    make: Callable[[Space, int], Optimiser],
    space: Space,
    outcomes: Mapping[str, Outcome],
    seed: int,
) -> list[tuple[int, float]]:
    """Run an optimiser whose candidates' outcomes are looked up.

    Args:
      outcomes: of every candidate of the space, by its key.
    Returns: (number of candidates so far, reward) whenever the best reward rose. It ends with the
      best of all, or after as many candidates as the space has.
    """
    optimiser = make(space, seed)
    best = max(outcome.reward for outcome in outcomes.values())
    improvements: list[tuple[int, float]] = []
    for number in range(len(outcomes)):
        candidate = optimiser.suggest(number)
        outcome = outcomes[space.key(candidate)]
        optimiser.observe(candidate, outcome)
        if not improvements or outcome.reward > improvements[-1][1]:
            improvements.append((number + 1, outcome.reward))
        if outcome.reward >= best:
            break
    return improvements
