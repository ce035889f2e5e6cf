"""Answers to questions: the likeliest next token, again and again (stage 1)."""

import torch
import torch.nn.functional as F

from spear_policy.model.inputs import ModelInputs
from spear_policy.model.language.attention import positions_of
from spear_policy.model.language.key_values import FixedMemory
from spear_policy.model.language.token_tables import ids_from_columns
from spear_policy.model.spear import SpearModel


@torch.no_grad()
def answer(model: SpearModel, inputs: ModelInputs, max_tokens: int) -> list[list[int]]:
    """Continue each prompt greedily until its end-of-answer token.

    Args:
        model: its state and action parts are not used.
        inputs: prompts of the batch in `text_ids`, padded on the right.
        max_tokens: longest answer.

    Returns:
        The ids of each answer, its end-of-answer token included; without one where the answer
        did not end within `max_tokens`, which `answers.parse_answer` then says.
    """
    language, words = model.config.language, model.config.vocabulary
    embedded, valid = model.prefix(inputs)
    batch, begin = valid.shape
    memory = FixedMemory(
        language.layers,
        batch,
        begin + max_tokens,
        language.head_dim,
        device=embedded.device,
        dtype=embedded.dtype,
    )
    hidden = model.language(embedded, positions_of(valid), valid.unsqueeze(1), memory)
    memory.keep(begin)
    position = valid.sum(-1, keepdim=True)
    # the prompt's last token, which padding may follow
    index = torch.arange(begin, device=valid.device).where(valid, -1).amax(-1)
    last = hidden[torch.arange(batch, device=valid.device), index].unsqueeze(1)
    answers: list[list[int]] = [[] for _ in range(batch)]
    open_rows = set(range(batch))
    for count in range(max_tokens):
        ids = ids_from_columns(model.tokens.logits(last).argmax(-1), words)
        for row in sorted(open_rows):
            answers[row].append(int(ids[row]))
            if answers[row][-1] == words.eos_id:
                open_rows.remove(row)
        if not open_rows:
            break
        valid = F.pad(valid, (0, 1), value=True)
        last = model.language(model.tokens.embed(ids), position + count, valid.unsqueeze(1), memory)
        memory.keep(1)
    return answers
