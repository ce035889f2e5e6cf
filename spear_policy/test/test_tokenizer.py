"""Text becomes the ids that the configuration promises, and comes back unchanged."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_fixture import LIKE_PALIGEMMA, paligemma_document, write_document
from transformers import GemmaTokenizer

from spear_policy.model.config import VocabularyConfig, small, spear_vlm, tiny
from spear_policy.model.tokenizer import (
    TextTokenizer,
    TokenizerError,
    Vocabulary,
    corpus,
    train_tokenizer,
)

TINY = train_tokenizer(tiny().vocabulary)
SMALL = train_tokenizer(small().vocabulary)


@pytest.fixture
def paligemma_file(tmp_path):
    return write_document(tmp_path / "tokenizer.json", paligemma_document())


def test_the_paper_sized_vocabulary_has_its_3d_tokens_at_257153_to_258176():
    vocabulary = Vocabulary(spear_vlm().vocabulary)
    assert vocabulary.coordinate_id(0) == 257153
    assert vocabulary.coordinate_id(1023) == 258176
    assert vocabulary.loc_id(0) == 256000
    assert vocabulary.config.image_id == 257152
    assert vocabulary.name(257153 + 512) == "<coord0512>"


@pytest.mark.parametrize("config", [tiny().vocabulary, spear_vlm().vocabulary, LIKE_PALIGEMMA])
def test_every_id_is_of_one_sort_and_bins_come_back(config):
    vocabulary = Vocabulary(config)
    assert all(vocabulary.coordinate_index(vocabulary.coordinate_id(i)) == i for i in (0, 5, 31))
    assert all(vocabulary.loc_index(vocabulary.loc_id(i)) == i for i in (0, 5, 63))
    for each in (config.pad_id, config.eos_id, config.bos_id, config.image_id):
        assert vocabulary.is_control(each)
        assert not vocabulary.is_loc(each) and not vocabulary.is_coordinate(each)
    assert not vocabulary.is_coordinate(config.end)
    assert not vocabulary.is_loc(config.loc_begin - 1)
    fixed = vocabulary.fixed_tokens()
    assert len(set(fixed.values())) == 4 + config.loc_tokens + config.coordinate_tokens
    assert all(vocabulary.name(token_id) == name for name, token_id in fixed.items())


def test_a_token_that_is_not_there_is_named():
    vocabulary = Vocabulary(tiny().vocabulary)
    with pytest.raises(ValueError, match=r"no 3D token 64: they are 0\.\.63"):
        vocabulary.coordinate_id(64)
    with pytest.raises(ValueError, match=r"id 7 is not a 3D token; .*3D tokens 513\.\.576"):
        vocabulary.coordinate_index(7)
    with pytest.raises(ValueError, match=r"id 512 is not a <loc> token"):
        vocabulary.loc_index(512)


@pytest.mark.parametrize("tokenizer", [TINY, SMALL], ids=["tiny", "small"])
def test_the_trained_tokenizer_fills_its_layout_without_a_gap(tokenizer):
    config = tokenizer.config
    strings = {tokenizer._tokenizer.id_to_token(i) for i in range(config.end)}
    assert None not in strings and len(strings) == config.end
    assert tokenizer._tokenizer.get_vocab_size() == config.end
    assert not any(string.startswith("<unused") for string in strings)


def test_a_layout_with_more_ids_than_the_corpus_needs_is_filled_too():
    config = VocabularyConfig(size=6000, loc_begin=0, loc_tokens=8, coordinate_tokens=8, pad_id=8,
                              eos_id=9, bos_id=10)  # fmt: skip
    tokenizer = train_tokenizer(config)
    assert tokenizer.id_of("<unused0000>") is not None
    assert tokenizer.id_of("<eos>") == 9 and tokenizer.id_of("<loc0007>") == 7
    assert tokenizer.decode(tokenizer.encode("put the cup down")) == "put the cup down"


def test_a_layout_without_room_for_bytes_is_refused():
    config = VocabularyConfig(size=300, loc_begin=250, loc_tokens=50, coordinate_tokens=8)
    with pytest.raises(TokenizerError, match="has 247 ids for words, but bytes alone need 256"):
        train_tokenizer(config)


def test_training_again_in_another_process_gives_the_same_bytes(tmp_path):
    here = TINY.save(tmp_path).read_bytes()
    code = (
        "import sys; from spear_policy.model.config import tiny;"
        "from spear_policy.model.tokenizer import train_tokenizer;"
        "train_tokenizer(tiny().vocabulary).save(sys.argv[1])"
    )
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run([sys.executable, "-c", code, str(other)], check=True)
    assert (other / "tokenizer.json").read_bytes() == here


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_any_text_comes_back_unchanged(text):
    for tokenizer in (TINY, SMALL):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= each < tokenizer.config.end for each in ids)


def test_words_of_the_demo_are_whole_tokens():
    for tokenizer in (TINY, SMALL):
        for colour in ("red", "green", "blue", "yellow"):
            assert len(tokenizer.encode(f"put the {colour} cube on the plate")) == 7
            assert len(tokenizer.encode(f"put the {colour} cube in the bowl")) == 7
    assert len(corpus()) > 1000


@pytest.mark.parametrize("text", ["<eos>", "<pad>", "<bos>", "<image>", "stop <eos> now"])
def test_a_text_cannot_smuggle_in_control_tokens(text, paligemma_file):
    for tokenizer in (TINY, TextTokenizer.from_file(paligemma_file, LIKE_PALIGEMMA)):
        is_control = Vocabulary(tokenizer.config).is_control
        assert not any(map(is_control, tokenizer.encode(text)))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_paligemmas_file_gets_the_3d_tokens_after_image(paligemma_file):
    tokenizer = TextTokenizer.from_file(paligemma_file, LIKE_PALIGEMMA)
    size = LIKE_PALIGEMMA.size
    assert tokenizer.id_of("<image>") == size
    assert tokenizer.id_of("<coord0000>") == size + 1
    assert tokenizer.id_of("<coord0031>") == size + 32
    ids = tokenizer.encode("<loc0003><coord0031> the cup")
    assert ids[:2] == [LIKE_PALIGEMMA.loc_begin + 3, size + 32]
    assert tokenizer.decode(ids) == "<loc0003><coord0031> the cup"


def test_paligemmas_form_splits_words_as_sentencepiece_does(paligemma_file):
    tokenizer = TextTokenizer.from_file(paligemma_file, LIKE_PALIGEMMA)
    document = paligemma_document()
    ids = document["model"]["vocab"]
    # no <bos> from the file's template, a blank with the word after it, newline by itself
    assert tokenizer.encode("put the cup") == [ids["put"], ids["\u2581the"], ids["\u2581cup"]]
    assert tokenizer.encode("\n") == [ids["\n"]]
    assert tokenizer.encode("\u00e9") == [ids["<0xC3>"], ids["<0xA9>"]]
    assert tokenizer.decode(tokenizer.encode("put the \u00e9clair")) == "put the \u00e9clair"


def test_a_saved_tokenizer_loads_from_its_folder_and_is_the_same(tmp_path, paligemma_file):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for tokenizer in (SMALL, TextTokenizer.from_file(paligemma_file, LIKE_PALIGEMMA)):
        written = tokenizer.save(folder).read_bytes()
        again = TextTokenizer.load(folder, tokenizer.config)
        text = "<coord0007>put the cup, \u00e9 <loc0001>\n<eos>"
        assert again.encode(text) == tokenizer.encode(text)
        assert again.save(folder).read_bytes() == written
        assert [path.name for path in folder.iterdir()] == ["tokenizer.json"]


def test_saving_leaves_the_old_file_when_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    old = SMALL.save(tmp_path).read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        TINY.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    assert (tmp_path / "tokenizer.json").read_bytes() == old


def _without_image(document):
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] != "<image>"]


def _with_loc_elsewhere(document):
    vocab = document["model"]["vocab"]
    vocab["<loc0000>"], vocab["<loc0001>"] = vocab["<loc0001>"], vocab["<loc0000>"]
    for token in document["added_tokens"]:
        token["id"] = vocab.get(token["content"], token["id"])
    document["added_tokens"].sort(key=lambda token: token["id"])


def _with_a_token_more(document):
    last = document["added_tokens"][-1]
    document["added_tokens"].append({**last, "id": last["id"] + 1, "content": "<extra>"})


def _with_loc_only_as_words(document):
    document["added_tokens"] = [
        t for t in document["added_tokens"] if not t["content"].startswith("<loc")
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_image, "the token <image> at the id .* has it at|the token <image> .*lacks it"),
        (_with_loc_elsewhere, "the token <loc0000> at the id .* has it at"),
        (_with_a_token_more, "the token <coord0000> at the id .* has it at"),
        (_with_loc_only_as_words, "splits its <loc> or 3D tokens into pieces"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused_with_the_token_and_the_mend(
    damage, message, tmp_path
):
    document = paligemma_document()
    damage(document)
    path = write_document(tmp_path / "tokenizer.json", document)
    with pytest.raises(TokenizerError, match=message) as caught:
        TextTokenizer.from_file(path, LIKE_PALIGEMMA)
    assert str(path) in str(caught.value)


def test_a_tokenizer_of_another_size_is_refused(paligemma_file):
    with pytest.raises(TokenizerError, match="tokenizer.json that belongs to this model"):
        TextTokenizer.from_file(paligemma_file, tiny().vocabulary)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": 3}', "\x00\x01"])
def test_a_damaged_file_is_refused_with_its_name(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(TokenizerError, match="is not a tokenizer .*copy the file again") as caught:
        TextTokenizer.from_file(path, LIKE_PALIGEMMA)
    assert str(path) in str(caught.value)


def test_half_a_file_is_refused(tmp_path):
    path = SMALL.save(tmp_path)
    path.write_text(path.read_text()[: path.stat().st_size // 2])
    with pytest.raises(TokenizerError, match="copy the file again"):
        TextTokenizer.load(tmp_path, SMALL.config)


def test_a_missing_file_is_refused_with_the_mend(tmp_path):
    with pytest.raises(TokenizerError, match="cannot read .*No such file.*put the checkpoint's"):
        TextTokenizer.load(tmp_path, tiny().vocabulary)


def test_ids_outside_the_vocabulary_and_broken_strings_are_refused():
    with pytest.raises(ValueError, match=r"the id 577 is outside 0\.\.576"):
        TINY.decode([3, 577])
    with pytest.raises(ValueError, match="not a string that UTF-8 can hold"):
        TINY.encode("\ud800")


def test_the_files_form_is_the_one_that_transformers_gives_gemma(tmp_path):
    ours = paligemma_document()
    pairs = [tuple(merge.split(" ")) for merge in ours["model"]["merges"]]
    gemma = GemmaTokenizer(vocab=ours["model"]["vocab"], merges=pairs).backend_tokenizer
    theirs = json.loads(gemma.to_str())
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        assert ours[part] == theirs[part]
    for name in ("type", "byte_fallback", "fuse_unk", "unk_token", "ignore_merges", "vocab"):
        assert ours["model"][name] == theirs["model"][name]
    path = write_document(tmp_path / "tokenizer.json", ours)
    tokenizer = TextTokenizer.from_file(path, LIKE_PALIGEMMA)
    for text in ("put the cup", "  a \u00e9, the  the", "cup-the.put", "\u2603"):
        assert tokenizer.encode(text) == gemma.encode(text, add_special_tokens=False).ids
