"""Text to ids and back, by the tokenizer.json that lies in the checkpoint folder.

It is PaliGemma's file, to which the 3D tokens are added, or the one that `train_tokenizer` makes
for the small presets. Both are read by the `tokenizers` library.

PaliGemma writes a position in the image as `<loc0000>` .. `<loc1023>`. A 3D token is written
`<coord0000>` .. `<coord1023>`, four digits at least as for <loc>, and its id follows that of
<image> (the paper names no string for it).
"""

import json
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from spear_policy.model.config import VocabularyConfig
from spear_policy.shared.files import write_atomically

# Names of tokens and their ids -------------------------------------------------------------------


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


# Text to ids and back ----------------------------------------------------------------------------


FILE_NAME = "tokenizer.json"


class TokenizerError(ValueError):
    """A tokenizer file that this model cannot use; names the file and the fix."""


class TextTokenizer:
    """Encodes text without adding anything to it.

    The strings of <loc> and 3D tokens in a text become those tokens, because questions contain
    them. The strings of control tokens do not: an instruction cannot end itself with "<eos>".
    """

    def __init__(self, tokenizer: Tokenizer, config: VocabularyConfig, source: str):
        """Use `from_file`, `load` or `train_tokenizer` instead.

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
        write_atomically(path, self._tokenizer.to_str(pretty=True) + "\n")
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


# The tokenizer of the small presets --------------------------------------------------------------


VERBS = ("put", "place", "move", "stack", "drop", "push", "slide", "lift", "pick up", "turn")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white", "small", "large")
OBJECTS = (
    "cube", "block", "plate", "bowl", "cup", "mug", "bottle", "carrot", "spoon", "fork", "knife",
    "towel", "pot", "pan", "lid", "can", "box", "ball", "banana", "apple", "eggplant", "corn",
    "sponge", "toy", "marker", "book", "bread", "cloth", "basket", "tray", "kettle", "whisk",
)  # fmt: skip
PLACES = (
    "on the table", "in the sink", "in the drawer", "on the stove", "in the basket",
    "on the left side", "on the right side", "in the middle", "next to the bowl",
    "on top of the plate", "behind the cup", "in front of the pot", "into the box",
    "to the left of the pan", "under the towel", "near the robot", "inside the microwave",
)  # fmt: skip
SENTENCES = (
    "open the drawer", "close the drawer", "open the microwave door", "close the fridge",
    "wipe the table with the towel", "fold the cloth", "pour water from the kettle into the cup",
    "turn on the faucet", "flip the switch", "press the button", "take the lid off the pot",
    "sweep everything into the tray", "hang the mug on the rack", "stop and wait",
)  # fmt: skip
MORE_WORDS = """
above across after against all almost along also and another any arm around away back back
bag bar base battery bear bed before below bench between big bin bottom brown brush
bucket burner button buttons candy carefully ceiling cereal chair cheese chicken chip
chocolate clean clip coffee coke compartment cooker corner counter cover cream cucumber cupboard
cut cutting desk detergent dish dishwasher dog door doll down drink dry dryer duck edge egg empty
end fabric far farther fish flat floor folded food front fruit fully garlic gently glass glasses
glove gold grab grape grasp grey gripper half handle hammer hand handed hard hat
head heavy height higher hold holder hole hook hot ice image insert ketchup keyboard key kitchen
label ladle lamp laptop later layer lay length lemon lettuce level lever light line long lower
machine make mango meat medium metal middle milk mouse mouth mushroom nearest nut oil oven object
objects onion opposite other out oven over package pants paper pasta peg pen pencil
pepper phone piece pile pillow pink pitcher place-mat plastic plug pliers plum point pointing
position potato pull rag rail raise remote remove reach rest rice ring robot rope rotate round
rubber salt sauce saucepan scissors scoop screw screwdriver second set shelf shirt shoe short
shorter side silver sideways slice slightly slowly soap sock soup space spatula square
steel stick stir strawberry straw string sushi sweet tall taller tape tea teal them then there
these thin third tissue toast toaster tomato tongs tool toothbrush top toward towards triangle
turkey two three four five six seven eight nine ten unfold up upright upside-down using vase
vegetable vertically water wall washing wheel wide width window wire wooden yogurt zip zucchini
metres centimetres vertices vertex coordinates depth axis horizontal vertical backwards forwards
""".split()
QUESTIONS = (
    "where is the {}?", "what is the 3D position of the centre of the {}?",
    "which point of the {} is closest to the camera?", "give the furthest point of the {}.",
    "output the 3D bounding box vertices of the {}.", "how far is the {} from the {}?",
    "what is the distance between the {} and the {} along x, y and z?",
    "how far apart are the bounding boxes of the {} and the {}?",
    "which pixel of the image shows the centre of the {}?",
    "which object is closer to the camera, the {} or the {}?",
    "which is larger, the {} or the {}? think step by step.",
    "the centre of the {} is at", "the {} is closer than the {}", "answer: the {}",
)  # fmt: skip


def corpus() -> list[str]:
    """Sentences of robot instructions, 3D questions and answers, always the same ones."""
    objects = [f"{colour} {name}" for colour, name in product(COLOURS, OBJECTS)]
    lines = [f"{verb} the {t} {p}" for verb, t, p in product(VERBS, OBJECTS, PLACES)]
    lines += [f"put the {a} on the {b}" for a, b in zip(objects, reversed(objects), strict=True)]
    lines += list(SENTENCES) * 20
    # the tiny preset has room for few whole words: those of the demo first
    demo = product(COLOURS[:4], ("on the plate", "in the bowl"))
    lines += [f"put the {colour} cube {place}" for colour, place in demo] * 100
    lines += [f"move the {word}" for word in MORE_WORDS] * 2
    for question, pair in product(QUESTIONS, zip(objects, reversed(objects), strict=True)):
        lines.append(question.format(*pair))
    return lines


def train_tokenizer(config: VocabularyConfig) -> TextTokenizer:
    """Train a tokenizer that fills the layout exactly.

    Byte-level byte-pair encoding: every text has ids and comes back unchanged, whatever its
    language. The same layout gives the same file, byte for byte.

    Ids that no merge of the corpus needs are taken by tokens `<unused0000>` ...

    Raises:
        TokenizerError: the layout has fewer than 256 ids for words: one for each byte.
    """
    fixed = Vocabulary(config).fixed_tokens()
    inside = {name: token_id for name, token_id in fixed.items() if token_id < config.size}
    free = sorted(set(range(config.size)) - set(inside.values()))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if len(free) < len(alphabet):
        raise TokenizerError(
            f"the vocabulary has {len(free)} ids for words, but bytes alone need {len(alphabet)}: "
            "raise vocabulary.size or lower vocabulary.loc_tokens"
        )
    learned = _train_pairs(alphabet, len(free))
    words = alphabet + ["".join(pair) for pair in learned]
    words += [f"<unused{i:04d}>" for i in range(len(free) - len(words))]
    model = models.BPE(vocab=inside | dict(zip(words, free, strict=True)), merges=learned)
    tokenizer = _with_parts(Tokenizer(model))
    # <image> and the 3D tokens take the ids after the words in the order of their adding
    is_control = Vocabulary(config).is_control
    tokenizer.add_tokens(
        [
            AddedToken(name, normalized=False, special=is_control(fixed[name]))
            for name in sorted(fixed, key=fixed.get)
        ]
    )
    return TextTokenizer(tokenizer, config, "the tokenizer trained for this layout")


def _train_pairs(alphabet, size):
    """Return the pairs of strings that training merges, in order; at most size - 256."""
    tokenizer = _with_parts(Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def _with_parts(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
