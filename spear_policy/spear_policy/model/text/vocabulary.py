"""Names of tokens and their ids.

PaliGemma writes a position in the image as `<loc0000>` .. `<loc1023>`. A 3D token is written
`<coord0000>` .. `<coord1023>`, four digits at least as for <loc>, and follows <image>
(facts/model.md 4.3; the paper names no string for it).
"""

import re

from spear_policy.model.config import VocabularyConfig

PAD, EOS, BOS, IMAGE = "<pad>", "<eos>", "<bos>", "<image>"
TOKEN_PATTERN = re.compile(r"<(loc|coord)([0-9]+)>")


def loc_token(index: int) -> str:
    """Write the <loc> token of one of the bins along a side of the image."""
    return f"<loc{index:04d}>"


def coordinate_token(index: int) -> str:
    """Write the 3D token of a bin of `CoordinateBins`."""
    return f"<coord{index:04d}>"


class Vocabulary:
    """Translates between token strings, bins and ids, as a `VocabularyConfig` lays them out."""

    def __init__(self, config: VocabularyConfig):
        """Take the layout."""
        self.config = config
        self._names = {
            config.pad_id: PAD,
            config.eos_id: EOS,
            config.bos_id: BOS,
            config.image_id: IMAGE,
        }

    def is_coordinate(self, token_id: int) -> bool:
        """Whether the id is a 3D token."""
        return self.config.coordinate_begin <= token_id < self.config.end

    def is_loc(self, token_id: int) -> bool:
        """Whether the id is a <loc> token."""
        return 0 <= token_id - self.config.loc_begin < self.config.loc_tokens

    def is_control(self, token_id: int) -> bool:
        """Whether the id is <pad>, <eos>, <bos> or <image>."""
        return token_id in self._names

    def coordinate_id(self, index: int) -> int:
        """Id of the 3D token of a bin.

        Raises:
            ValueError: there is no such bin.
        """
        _check_bin(index, self.config.coordinate_tokens, "3D")
        return self.config.coordinate_begin + index

    def loc_id(self, index: int) -> int:
        """Id of the <loc> token of a bin.

        Raises:
            ValueError: there is no such bin.
        """
        _check_bin(index, self.config.loc_tokens, "<loc>")
        return self.config.loc_begin + index

    def coordinate_index(self, token_id: int) -> int:
        """Bin of a 3D token.

        Raises:
            ValueError: the id is another token.
        """
        if not self.is_coordinate(token_id):
            raise ValueError(f"the id {token_id} is not a 3D token; {self._ranges()}")
        return token_id - self.config.coordinate_begin

    def loc_index(self, token_id: int) -> int:
        """Bin of a <loc> token.

        Raises:
            ValueError: the id is another token.
        """
        if not self.is_loc(token_id):
            raise ValueError(f"the id {token_id} is not a <loc> token; {self._ranges()}")
        return token_id - self.config.loc_begin

    def name(self, token_id: int) -> str | None:
        """Return the string of a control, <loc> or 3D token; None for a word."""
        if self.is_coordinate(token_id):
            return coordinate_token(self.coordinate_index(token_id))
        if self.is_loc(token_id):
            return loc_token(self.loc_index(token_id))
        return self._names.get(token_id)

    def fixed_tokens(self) -> dict[str, int]:
        """Every token whose id the layout decides: the control, <loc> and 3D tokens."""
        tokens = {name: token_id for token_id, name in self._names.items()}
        tokens |= {loc_token(i): self.loc_id(i) for i in range(self.config.loc_tokens)}
        coordinates = range(self.config.coordinate_tokens)
        return tokens | {coordinate_token(i): self.coordinate_id(i) for i in coordinates}

    def _ranges(self):
        config = self.config
        return (
            f"<loc> tokens are {config.loc_begin}..{config.loc_begin + config.loc_tokens - 1}, "
            f"3D tokens {config.coordinate_begin}..{config.end - 1}"
        )


def _check_bin(index, count, name):
    if not 0 <= index < count:
        raise ValueError(f"there is no {name} token {index}: they are 0..{count - 1}")
