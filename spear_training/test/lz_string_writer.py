"""lz-string's compressor (compressToEncodedURIComponent), for tests.

Written from the published algorithm: phrases are numbered as they come up, a character that is
new is sent itself, and one more bit is used whenever the numbers run out of the present ones.
"""

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"


class _Sender:
    """Collects bits; counts down how many codes fit into the present width."""

    def __init__(self):
        self.bits, self.width, self.until_wider = [], 2, 2

    def send(self, value, width):
        """Send a number, lowest bit first."""
        self.bits += [(value >> place) & 1 for place in range(width)]

    def count(self):
        """Note that a code was used up."""
        self.until_wider -= 1
        if self.until_wider == 0:
            self.until_wider = 2**self.width
            self.width += 1


def compress(text: str) -> str:
    """Compress a text."""
    units = text.encode("utf-16-le", "surrogatepass")
    letters = [chr(int.from_bytes(units[k : k + 2], "little")) for k in range(0, len(units), 2)]
    numbers: dict[str, int] = {}
    unsent: set[str] = set()
    sender = _Sender()

    def send(phrase):
        if phrase in unsent:
            unsent.remove(phrase)
            size = 8 if ord(phrase) < 256 else 16
            sender.send(0 if size == 8 else 1, sender.width)
            sender.send(ord(phrase), size)
            sender.count()
        else:
            sender.send(numbers[phrase], sender.width)
        sender.count()

    phrase = ""
    for letter in letters:
        if letter not in numbers:
            numbers[letter] = len(numbers) + 3
            unsent.add(letter)
        if phrase + letter in numbers:
            phrase += letter
        else:
            send(phrase)
            numbers[phrase + letter] = len(numbers) + 3
            phrase = letter
    if phrase:
        send(phrase)
    sender.send(2, sender.width)
    bits = sender.bits + [0] * (6 - len(sender.bits) % 6)
    return "".join(
        ALPHABET[int("".join(map(str, bits[k : k + 6])), 2)] for k in range(0, len(bits), 6)
    )
