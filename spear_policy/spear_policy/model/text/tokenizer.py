"""Text to ids and back, by the tokenizer.json that lies in the checkpoint folder.

It is PaliGemma's file, to which the 3D tokens are added, or the one that
`tokenizer_training` makes for the small presets. Both are read by the `tokenizers` library.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from spear_policy.model.config import VocabularyConfig
from spear_policy.model.text.vocabulary import Vocabulary, coordinate_token

FILE_NAME = "tokenizer.json"


class TokenizerError(ValueError):
    """A tokenizer file that this model cannot use; names the file and the mend."""


class TextTokenizer:
    """Encodes text without adding anything to it.

    The strings of <loc> and 3D tokens in a text become those tokens, because questions contain
    them. The strings of control tokens do not: an instruction cannot end itself with "<eos>".
    """

    def __init__(self, tokenizer: Tokenizer, config: VocabularyConfig, source: str):
        """Use `from_file`, `load` or `tokenizer_training.train_tokenizer` instead.

        Args:
            tokenizer: has every token of the layout.
            config: the layout that the ids must have.
            source: what the messages call this tokenizer.

        Raises:
            TokenizerError: a token has another id than the layout says.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # Control tokens are marked special in the file; this makes their strings plain text.
        tokenizer.encode_special_tokens = True
        self.config = config
        self._tokenizer = tokenizer
        _verify(self, source)

    @classmethod
    def from_file(cls, path: str | Path, config: VocabularyConfig) -> "TextTokenizer":
        """Read a tokenizer.json and add the 3D tokens if it has none.

        Raises:
            TokenizerError: the file is missing, damaged or of another model.
        """
        path = Path(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            _mark_special(document, config)
            tokenizer = Tokenizer.from_str(json.dumps(document))
        except OSError as error:
            raise TokenizerError(
                f"cannot read the tokenizer {path} ({error.strerror}): put the checkpoint's "
                f"{FILE_NAME} there"
            ) from None
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(
                f"{path} is not a tokenizer of the tokenizers library ({error}): copy the file "
                "again from its checkpoint"
            ) from None
        names = [coordinate_token(i) for i in range(config.coordinate_tokens)]
        tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names])
        return cls(tokenizer, config, str(path))

    @classmethod
    def load(cls, folder: str | Path, config: VocabularyConfig) -> "TextTokenizer":
        """Read what `save` wrote; the layout is the one in the checkpoint's config.json.

        Raises:
            TokenizerError: the file is missing, damaged or of another model.
        """
        return cls.from_file(Path(folder) / FILE_NAME, config)

    def save(self, folder: str | Path) -> Path:
        """Write tokenizer.json into an existing folder, whole or not at all."""
        path = Path(folder) / FILE_NAME
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(beside, "w", encoding="utf-8") as file:
                file.write(self._tokenizer.to_str(pretty=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        return path

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without <bos> or <eos>.

        Raises:
            ValueError: the text is not a string of valid Unicode.
        """
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise ValueError(f"{text!r} is not a string that UTF-8 can hold") from None

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, control tokens included; bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        ids = [int(each) for each in ids]
        for each in ids:
            if not 0 <= each < self.config.end:
                raise ValueError(f"the id {each} is outside 0..{self.config.end - 1}")
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def id_of(self, token: str) -> int | None:
        """Id of one token's exact string; None when there is none."""
        return self._tokenizer.token_to_id(token)


def _mark_special(document, config):
    """Mark control tokens as special, <loc> and 3D tokens as not; files differ in this."""
    vocabulary = Vocabulary(config)
    for token in document.get("added_tokens", []):
        if vocabulary.name(token["id"]) is not None:
            token["special"] = vocabulary.is_control(token["id"])


def _verify(tokenizer, source):
    config = tokenizer.config
    for name, expected in Vocabulary(config).fixed_tokens().items():
        found = tokenizer.id_of(name)
        if found != expected:
            has = "lacks it" if found is None else f"has it at {found}"
            raise TokenizerError(
                f"the model expects the token {name} at the id {expected}, but {source} {has}: "
                "use the tokenizer.json that belongs to this model's checkpoint"
            )
    sample = [config.loc_begin] * (config.loc_tokens > 0)
    sample += [config.coordinate_begin] * (config.coordinate_tokens > 0)
    if tokenizer.encode(tokenizer.decode(sample)) != sample:
        raise TokenizerError(
            f"{source} splits its <loc> or 3D tokens into pieces: they must be added tokens"
        )
