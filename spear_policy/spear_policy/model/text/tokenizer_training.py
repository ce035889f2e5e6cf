"""The tokenizer of the small presets, trained on sentences that are generated here.

Byte-level byte-pair encoding: every text has ids and comes back unchanged, whatever its
language. The same layout gives the same file, byte for byte.
"""

import json
from itertools import product

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from spear_policy.model.config import VocabularyConfig
from spear_policy.model.text.tokenizer import TextTokenizer, TokenizerError
from spear_policy.model.text.vocabulary import Vocabulary

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
    things = [f"{colour} {thing}" for colour, thing in product(COLOURS, OBJECTS)]
    lines = [f"{verb} the {t} {p}" for verb, t, p in product(VERBS, OBJECTS, PLACES)]
    lines += [f"put the {a} on the {b}" for a, b in zip(things, reversed(things), strict=True)]
    lines += list(SENTENCES) * 20
    # the tiny preset has room for few whole words: those of the demo first
    demo = product(COLOURS[:4], ("on the plate", "in the bowl"))
    lines += [f"put the {colour} cube {place}" for colour, place in demo] * 100
    lines += [f"move the {word}" for word in MORE_WORDS] * 2
    for question, (thing, other) in product(QUESTIONS, zip(things, reversed(things), strict=True)):
        lines.append(question.format(thing, other))
    return lines


def train_tokenizer(config: VocabularyConfig) -> TextTokenizer:
    """Train a tokenizer that fills the layout exactly.

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
