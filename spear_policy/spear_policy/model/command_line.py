"""What the programs of this package share on their command lines."""

import argparse


def whole_number(text: str) -> int:
    """A count from 1 on, for argparse.

    Raises:
        ArgumentTypeError: the text is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
