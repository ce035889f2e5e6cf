"""Which episodes of a data set are asked for, in words like "0,3,7-9"."""

import re
from collections.abc import Sequence

ALL = "all"


def parse_selection(text: str, count: int) -> list[int]:
    """Episode numbers from words like "0,3,7-9" or "all", for a reader of `count` episodes.

    Raises:
        ValueError: the text is no selection, or names an episode that does not exist.
    """
    if text == ALL:
        return list(range(count))
    chosen: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise ValueError(f"--episodes {text!r}: {part!r} is no number or range like 3 or 7-9")
        first, last = match.groups()
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers[-1] >= count:
            raise ValueError(f"--episodes {text!r}: {part!r} is outside 0 to {count - 1}")
        chosen |= dict.fromkeys(numbers)
    return list(chosen)


def selection_words(chosen: Sequence[int]) -> str:
    """The shortest words for which `parse_selection` gives `chosen`."""
    words: list[str] = []
    begin = 0
    for end in range(1, len(chosen) + 1):
        if end < len(chosen) and chosen[end] == chosen[end - 1] + 1:
            continue
        first, last = chosen[begin], chosen[end - 1]
        words.append(str(first) if first == last else f"{first}-{last}")
        begin = end
    return ",".join(words)


def spread(chosen: Sequence[int], most: int) -> list[int]:
    """At most `most` of `chosen`, evenly over all of them, without repeats."""
    count = min(most, len(chosen))
    if count < 2:
        return list(chosen[:count])
    return [chosen[i * (len(chosen) - 1) // (count - 1)] for i in range(count)]
