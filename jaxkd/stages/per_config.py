"""Functions that are compiled once for models of equal configs."""

import json
from collections.abc import Callable
from typing import Any

from jaxkd.models import families
from jaxkd.models.families import Config


class PerConfig:
    """`make(*configs)`, not made again while the configs stay as they were.

    Students of one shape follow each other in a stage: its compiled functions then serve all of
    them. Only the last is kept, so that no memory is held for models that are done.

    >>> from jaxkd.models import gpt2
    >>> made = PerConfig(lambda config, other: object())
    >>> one = made(gpt2.Config(layers=2), None)
    >>> made(gpt2.Config(layers=2), None) is one, made(gpt2.Config(layers=3), None) is one
    (True, False)
    """

    def __init__(self, make: Callable[..., Any]):
        self._make, self._key, self._made = make, "", None

    def __call__(self, *configs: Config | None) -> Any:
        described = [None if each is None else families.describe(each) for each in configs]
        key = json.dumps(described, sort_keys=True)
        if key != self._key:
            self._key, self._made = key, self._make(*configs)
        return self._made
