"""lz-string's texts are read exactly, and damaged ones are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lz_string_writer import compress

from spear_training.annotation.ego_exo4d import decompress
from spear_training.annotation.records import RecordError

# The first two are in the tests of the Rust port lz_str; all were made with lzstring 1.0.4.
KNOWN = [
    ("red", "E4UwJkA"),
    (
        "The quick brown fox jumps over the lazy dog",
        "CoCwpgBAjgrglgYwNYQEYCcD2B3AdhAM0wA8IArGAWwAcBnCTANzHQgBdwIAbAQwC8AnhAAmmAOZA",
    ),
    ("a" * 41, "IY18ZXkA"),
    ("\u4e2d\u4e2d", "rRyyA"),
    ("", "Q"),
]


@pytest.mark.parametrize(("text", "packed"), KNOWN)
def test_known_texts(text, packed):
    assert decompress(packed) == text
    assert compress(text) == packed


@given(st.text())
def test_any_text_comes_back(text):
    assert decompress(compress(text)) == text


@given(st.text("0123456789:;<=>?@PQRS`abcdefo", min_size=200, max_size=2000))
def test_run_lengths_come_back(text):
    assert decompress(compress(text)) == text


@given(st.text("ab", min_size=8))
def test_a_cut_text_is_refused(text):
    packed = compress(text)
    with pytest.raises(RecordError, match="ends too early"):
        decompress(packed[: len(packed) // 2])


@pytest.mark.parametrize(
    ("packed", "words"), [("E4%wJkA", "'%' is no letter"), ("////", "no letter"), ("w", "told")]
)
def test_nonsense_is_refused(packed, words):
    with pytest.raises(RecordError, match=words):
        decompress(packed)
