"""Text that lz-string's compressToEncodedURIComponent has made, as Ego-Exo4D stores its masks.

The format (github.com/pieroxy/lz-string): a stream of codes, six bits a letter. A code names a
phrase of a table that grows with every code, and is as wide as the table's length needs. Codes 0
and 1 are followed by a new character of 8 or 16 bits, code 2 ends the text. Letters give their
highest bit first, codes and characters their lowest.
"""

from spear_training.annotation.masks import MaskError

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-$"
_BITS = {letter: f"{value:06b}"[-6:] for value, letter in enumerate(_ALPHABET)}
_NEW_BITS = {0: 8, 1: 16}
_END = 2


def decompress(text: str) -> str:
    """Read a compressed text.

    Raises:
        MaskError: it is cut, or no such text.
    """
    try:
        # Spaces are what a URL makes of "+".
        bits = "".join([_BITS[letter] for letter in text.replace(" ", "+")])
    except KeyError as error:
        raise MaskError(f"the mask is damaged: {error.args[0]!r} is no letter of it") from None
    table: list[str] = ["", "", ""]  # the three codes that are no phrases
    found: list[str] = []
    at, before = 0, ""
    while True:
        width = len(table).bit_length()
        code, at = _number(bits, at, width)
        if code == _END:
            # Characters beyond 16 bits come as the pairs that JavaScript makes of them.
            return "".join(found).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if code in _NEW_BITS:
            value, at = _number(bits, at, _NEW_BITS[code])
            code = len(table)
            table.append(chr(value))
        if code > len(table) or (code == len(table) and not before):
            raise MaskError("the mask is damaged: it names what it has not told")
        phrase = table[code] if code < len(table) else before + before[0]
        if before:
            table.append(before + phrase[0])
        found.append(phrase)
        before = phrase


def _number(bits: str, at: int, width: int) -> tuple[int, int]:
    end = at + width
    if end > len(bits):
        raise MaskError("the mask is damaged: it ends too early")
    return int(bits[at:end][::-1], 2), end
