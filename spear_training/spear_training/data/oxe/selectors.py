"""Which episodes of a data set a row takes."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.rules import Condition, Subset


class NotSelected(EpisodeError):
    """The episode is sound, but the row does not take it; the text says why."""


def selector_keys(rules: Iterable[Condition | Subset]) -> tuple[str, ...]:
    """The features of an episode that `select` needs."""
    return tuple(dict.fromkeys(rule.key for rule in rules))


def select(rules: Iterable[Condition | Subset], metadata: Mapping[str, Any]) -> None:
    """Let an episode pass that every rule takes.

    Raises:
        NotSelected: the text names the rule and the episode's value.
    """
    for rule in rules:
        value = metadata[rule.key]
        wanted, holds = _judge(rule, value)
        if not holds:
            raise NotSelected(f"not selected: {rule.key} is {str(value)!r}, wanted is {wanted}")


def _judge(rule: Condition | Subset, value: Any) -> tuple[str, bool]:
    if isinstance(rule, Subset):
        rule = Condition(key=rule.key, matches=rule.matches)
    if rule.equals is not None:
        return str(rule.equals), bool(value) == rule.equals
    if rule.contains is not None:
        return f"a text with {rule.contains!r}", rule.contains in str(value)
    return f"a text like {rule.matches!r}", re.search(rule.matches, str(value)) is not None
