"""Options of models: what is refused wherever they come from."""

from collections.abc import Iterable, Mapping
from typing import Any

from bayesdust.errors import BayesdustError


def refuse_unknown(
    given: Mapping[str, Any], takes: Iterable[str], choices: Mapping[str, tuple[str, ...]]
) -> None:
    """Raises BayesdustError for an option not among `takes`, or a value not among its `choices`."""
    takes = tuple(takes)
    for key, value in given.items():
        if key not in takes:
            raise BayesdustError(
                f"This model has no option {key!r}: choose from {', '.join(takes)}."
            )
        if key in choices and value not in choices[key]:
            known = ", ".join(choices[key])
            raise BayesdustError(f"Option {key} cannot be {value!r}: choose from {known}.")
