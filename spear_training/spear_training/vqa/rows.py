"""Examples as rows of ids, no longer than the model reads."""

from spear_policy.model.text.answers import AnswerGrammar
from spear_policy.model.text.prompts import QuestionIds, question_ids
from spear_training.vqa.examples import rendered
from spear_training.vqa.pairs import Example

_ANY_LENGTH = 1 << 30


def example_ids(
    example: Example, grammar: AnswerGrammar, max_tokens: int
) -> tuple[QuestionIds, int] | None:
    """Lay an example out for training; what is too long loses its last pairs.

    Args:
        max_tokens: longest row. It is no size of the model: rotary positions have no end.

    Returns:
        The row and how many pairs it has; None where not even the first pair fits.

    Raises:
        ValueError: the grammar's bins cannot say a number, see `rendered`.
    """
    pairs = rendered(example, grammar)
    while pairs:
        row = question_ids(pairs, grammar.tokenizer, grammar.tokenizer.config, _ANY_LENGTH)
        if len(row.ids) <= max_tokens:
            return row, len(pairs)
        pairs.pop()
    return None
