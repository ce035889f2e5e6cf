"""A tokenizer.json in the form of PaliGemma's, small, for the tests of text.

The real file cannot be had here (its licence has to be accepted by a person). This one has the
same parts: byte-fallback BPE over text whose blanks became "▁", blanks split off with the word
before them, newline and <loc> tokens as added tokens, <image> after all, and a template that
would add <bos>.
"""

import json

from spear_policy.model.config import VocabularyConfig

_CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
_BYTES = [f"<0x{i:02X}>" for i in range(256)]
_LETTERS = [*"abcdefghijklmnopqrstuvwxyz.,:;?-", "\u2581"]
_MERGES = ["p u", "pu t", "t h", "th e", "\u2581 the", "c u", "cu p", "\u2581 cup", "\u2581 \u2581"]
_PIECES = [merge.replace(" ", "") for merge in _MERGES]
_WORDS = [*_CONTROL, "\n", *_BYTES, *_LETTERS, *_PIECES]
_LOC = [f"<loc{i:04d}>" for i in range(64)]
_SEG = [f"<seg{i:03d}>" for i in range(4)]

LIKE_PALIGEMMA = VocabularyConfig(
    size=len(_WORDS) + len(_LOC) + len(_SEG),
    loc_begin=len(_WORDS),
    loc_tokens=len(_LOC),
    coordinate_tokens=32,
)


def paligemma_document() -> dict:
    """What json.load gives for such a file; <loc> tokens are marked special, as in some copies."""
    words = [*_WORDS, *_LOC, *_SEG]
    added = [*_CONTROL, "\n", *_LOC, *_SEG, "<image>"]
    ids = {word: i for i, word in enumerate([*words, "<image>"])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": ids[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": token != "\n",
            }
            for token in sorted(added, key=ids.get)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<bos>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "<bos>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {word: ids[word] for word in words},
            "merges": _MERGES,
        },
    }


def write_document(path, document: dict):
    """Write the file and return its path."""
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
