"""From one stored annotation to an example: one to four questions with true answers.

An example depends on the annotation, the seed and the settings alone. Nothing is fitted here;
boxes and gaps are numbers of the record. Each pass over the pictures takes another seed, and so
gets other questions.
"""

from collections import Counter

from spear_policy.model.text.answers import AnswerGrammar
from spear_policy.model.text.coordinate_bins import CoordinateBins
from spear_training.annotation.records import Annotation
from spear_training.vqa.bin_range import check_held
from spear_training.vqa.comparisons import ask_comparison
from spear_training.vqa.draws import Draws
from spear_training.vqa.object_questions import (
    ask_box,
    ask_box_distance,
    ask_keypoint,
    ask_object_distance,
)
from spear_training.vqa.pairs import CATEGORIES, Example, NotAsked, Pair
from spear_training.vqa.pixel_questions import ask_backprojection, ask_pixel_point
from spear_training.vqa.scene import Scene, scene_of
from spear_training.vqa.settings import QuestionSettings

TRIES = 8
ASKED_ALREADY = "it is asked already"
_ASK = {
    "keypoints": ask_keypoint,
    "box": ask_box,
    "object_distance": ask_object_distance,
    "box_distance": ask_box_distance,
    "backprojection": ask_backprojection,
    "pixel_points": ask_pixel_point,
}


def make_example(
    annotation: Annotation,
    seed: int,
    settings: QuestionSettings | None = None,
    bins: CoordinateBins | None = None,
    tally: Counter | None = None,
) -> Example | None:
    """Draw the questions of one picture.

    A category that gives no question in `TRIES` draws is left out of the example, and the others
    share its weight.

    Args:
        annotation: of the picture.
        seed: of this pass; the annotation's id is the other part of the seed.
        settings: None: the defaults.
        bins: of the model; pairs that they cannot say are not asked. None: all are asked.
        tally: counts (category, "asked" or the reason why a draw was not asked).

    Returns:
        None where nothing can be asked.
    """
    settings = settings or QuestionSettings()
    scene, draws = scene_of(annotation), Draws(annotation.id, seed)
    wanted = 1 + draws.below(settings.pairs_max)
    left = {name: settings.weights.get(name, 0) for name in CATEGORIES}
    left = {name: weight for name, weight in left.items() if weight}
    pairs: dict[tuple, Pair] = {}
    while left and len(pairs) < wanted:
        category = draws.weighted(left)
        for _ in range(TRIES):
            try:
                pair = _draw(category, scene, draws, settings, bins)
                if (category, pair.subject) in pairs:
                    raise NotAsked(ASKED_ALREADY)
            except NotAsked as reason:
                if tally is not None:
                    tally[category, str(reason)] += 1
            else:
                pairs[category, pair.subject] = pair
                if tally is not None:
                    tally[category, "asked"] += 1
                break
        else:
            del left[category]
    return Example(annotation.id, tuple(pairs.values())) if pairs else None


def _draw(
    category: str,
    scene: Scene,
    draws: Draws,
    settings: QuestionSettings,
    bins: CoordinateBins | None,
) -> Pair:
    if category == "comparison":
        pair = ask_comparison(scene, draws, settings, bins)
    else:
        pair = _ASK[category](scene, draws)
    if bins is not None:
        check_held(pair, bins)
    return pair


def rendered(example: Example, grammar: AnswerGrammar) -> list[tuple[str, str]]:
    """Write an example as text: question and answer of each pair, numbers as tokens.

    Raises:
        ValueError: the grammar's bins cannot say a number: draw the example with these bins.
    """
    return [rendered_pair(pair, grammar) for pair in example.pairs]


def rendered_pair(pair: Pair, grammar: AnswerGrammar) -> tuple[str, str]:
    """Write one pair as text, see `rendered`.

    Raises:
        ValueError: the grammar's bins cannot say a number: draw the example with these bins.
    """
    try:
        check_held(pair, grammar.bins)
    except NotAsked as reason:
        raise ValueError(
            f"{pair.category} question about {pair.subject}: {reason}; give `make_example` the "
            "bins that it is written with"
        ) from None
    question = "".join(
        part if isinstance(part, str) else grammar.format_answer(part) for part in pair.question
    )
    return question, grammar.format_answer(pair.answer)
