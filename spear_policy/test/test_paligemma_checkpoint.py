"""PaliGemma's weights are read from every layout that transformers has written, or refused."""

import json
import re

import pytest
import torch
from checkpoint_checks import changed, copies, public_paligemma, refused
from safetensors.torch import load_file, save_file
from toy_models import MICRO, micro

from spear_policy.model.checkpoint import INDEX, WEIGHTS
from spear_policy.model.gemma import initialise_coordinates
from spear_policy.model.public_layouts import paligemma, read
from spear_policy.model.public_weights import load_paligemma
from spear_policy.model.spear import SpearModel

VISION = MICRO.siglip


@pytest.fixture(scope="module")
def published():
    return public_paligemma(MICRO)


def of_4_41(tensors):
    """With the buffers and the unused head of that time."""
    renamed = until_5_3(tensors)
    output = renamed["language_model.model.embed_tokens.weight"].clone()
    output[MICRO.vocabulary.size :] += 1  # they were drawn twice, for input and output
    tower, layers = "vision_tower.vision_model", "language_model.model.layers"
    width = VISION.width
    return renamed | {
        f"{tower}.embeddings.position_ids": torch.arange(16).unsqueeze(0),
        f"{tower}.head.probe": torch.ones(1, 1, width),
        f"{tower}.head.attention.in_proj_weight": torch.ones(3 * width, width),
        f"{tower}.head.attention.out_proj.bias": torch.ones(width),
        f"{tower}.head.mlp.fc1.weight": torch.ones(4, width),
        f"{layers}.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "language_model.lm_head.weight": output,
    }


def until_5_3(tensors):
    return {k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in tensors.items()}


def of_5_4(tensors):
    return {f"model.{k}": v for k, v in until_5_3(tensors).items()}


def in_memory_of_4_52(tensors):
    renamed = of_5_4(tensors).items()
    return {k.replace("language_model.model.", "language_model."): v for k, v in renamed}


def in_memory_of_5_6(tensors):
    return {k.replace(".vision_model", ""): v for k, v in in_memory_of_4_52(tensors).items()}


def output_table_only(tensors):
    table = tensors.pop("language_model.model.embed_tokens.weight")
    return tensors | {"lm_head.weight": table}


def of_wrapped_modules(tensors):
    """torch.compile a layer, data-parallel around everything."""
    tensors = in_memory_of_5_6(tensors).items()
    return {re.sub(r"(layers\.\d+)", r"\1._orig_mod", f"module.{k}"): v for k, v in tensors}


def of_peft_merged(tensors):
    return {f"base_model.model.{k}": v for k, v in in_memory_of_5_6(tensors).items()}


def paligemma_folder(published, folder, rename=None, shards=False):
    """Write the model as transformers does since 5.6, or with the names of another layout."""
    published.save_pretrained(folder, max_shard_size="100KB" if shards else "1GB")
    if rename:
        save_file(rename(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    return folder


LAYOUTS = (
    None,
    of_4_41,
    until_5_3,
    of_5_4,
    in_memory_of_4_52,
    in_memory_of_5_6,
    output_table_only,
    of_wrapped_modules,
    of_peft_merged,
)


def holds(model, published):
    """Whether the model has the values of a PaliGemma; its logits: test_paligemma_parity.py."""
    theirs = published.state_dict()
    return all(
        torch.equal(
            model.get_parameter(name), read(source, theirs, model.get_parameter(name).shape)
        )
        for name, source in paligemma(MICRO).items()
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: each and each.__name__)
def test_paligemma_is_read_in_every_layout_that_was_written(published, tmp_path, layout):
    folder = paligemma_folder(published, tmp_path / "paligemma", layout, shards=layout is None)
    if layout is None:
        assert len(list(folder.glob("model-*.safetensors"))) > 3
    model = micro()
    before = copies(model)
    filled = load_paligemma(model, folder)
    assert holds(model, published)
    assert (
        set(filled.taken)
        == changed(model, before)
        == set(paligemma(MICRO)) | {"tokens.coordinates"}
    )
    assert not filled.left
    if layout is of_4_41:
        assert len(filled.ignored) == 7


def test_adapters_that_are_not_merged_are_named(published, tmp_path):
    def adapted(tensors):
        key = "language_model.model.layers.1.self_attn.q_proj"
        tensors[f"{key}.base_layer.weight"] = tensors.pop(f"{key}.weight")
        return tensors | {f"{key}.lora_A.default.weight": torch.ones(4, 64)}

    folder, model = paligemma_folder(published, tmp_path / "peft", adapted), micro()
    refused(load_paligemma, model, folder, folder / WEIGHTS, "PEFT", "q_proj", "merge_and_unload")
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    refused(load_paligemma, model, folder, folder, "PEFT", "merge_and_unload")


def test_the_3d_tokens_are_drawn_around_the_words_that_were_loaded(published, tmp_path):
    folder = paligemma_folder(published, tmp_path / "paligemma")
    model = micro()
    load_paligemma(model, folder, seed=3)
    words, coordinates = model.tokens.words.detach(), model.tokens.coordinates.detach().clone()
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(coordinates, initialise_coordinates(words, 64, generator=generator))
    relative = (coordinates.std(0) / words.std(0)).mean()
    assert 0.002 < relative < 0.005  # sqrt(1e-5)
    load_paligemma(model, folder, seed=4)
    assert not torch.equal(coordinates, model.tokens.coordinates)


def test_a_spoiled_paligemma_is_refused_by_file_and_key_and_changes_nothing(published, tmp_path):
    folder, model = paligemma_folder(published, tmp_path / "p"), micro()
    path = folder / WEIGHTS
    whole = load_file(path)
    key = "language_model.model.layers.2.self_attn.v_proj.weight"

    def with_changes(**changes):
        tensors = {name.replace("/", "."): values for name, values in changes.items()}
        save_file({k: v for k, v in (whole | tensors).items() if v is not None}, path)

    v = whole[key]
    spoiled = v.clone()
    spoiled[1, 2] = float("nan")
    for value, words in (
        (None, "has no tensor"),
        (spoiled, "NaN"),
        (v[:, :3].contiguous(), "is (16, 3) where (16, 64)"),
        (v[:3].contiguous(), "is (3, 64) where (16, 64)"),
        (v.to(torch.int32), "not floating-point"),
    ):
        with_changes(**{key: value})
        refused(load_paligemma, model, folder, path, key, words)
    with_changes(**{"language_model.model.layers.3.mlp.up_proj.weight": v.clone()})
    refused(load_paligemma, model, folder, path, "unknown tensor", "layers.3.mlp.up_proj")
    with_changes(**{"vision_tower.head.other": v.clone()})
    refused(load_paligemma, model, folder, "unknown tensor 'vision_tower.head.other'")
    table = whole["language_model.model.embed_tokens.weight"]
    with_changes(**{"lm_head.weight": table + 1})
    refused(load_paligemma, model, folder, "'lm_head.weight' is not", "one")
    with_changes(**{"language_model.model.embed_tokens.weight": table.repeat(2, 1)})
    refused(load_paligemma, model, folder, "1152 rows", "vocabulary.size")
    with_changes(**{"language_model.model.norm.weight": None})
    refused(load_paligemma, model, folder, path, "language_model.model.norm.weight")
    with_changes()
    load_paligemma(model, folder)


def test_heads_of_another_number_are_refused_although_the_shapes_fit(published, tmp_path):
    folder, model = paligemma_folder(published, tmp_path / "p"), micro()
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for part, name, wrong in (
        ("text_config", "num_attention_heads", 2),
        ("text_config", "num_key_value_heads", 2),
        ("text_config", "head_dim", 32),
        ("text_config", "rope_theta", 5e5),
        ("vision_config", "num_attention_heads", 8),
    ):
        document = json.loads(json.dumps(values))
        if name == "rope_theta":
            document[part].pop("rope_parameters")
        document[part][name] = wrong
        path.write_text(json.dumps(document))
        refused(load_paligemma, model, folder, path, f"{part}.{name} is {wrong}")
    for part in ("text_config", "vision_config"):
        path.write_text(json.dumps(values | {part: 3}))
        refused(load_paligemma, model, folder, path, f"{part} is 3 and not a table")
    path.write_text(json.dumps(values | {"model_type": "llava"}))
    refused(load_paligemma, model, folder, path, "'llava'")
    path.unlink()
    refused(load_paligemma, model, folder, path)
    # two heads' rows moved from the queries to the keys: the sum stays
    path.write_text(json.dumps(values))
    tensors = load_file(folder / WEIGHTS)
    layer = "language_model.model.layers.0.self_attn"
    tensors[f"{layer}.q_proj.weight"] = tensors[f"{layer}.q_proj.weight"][:48].contiguous()
    tensors[f"{layer}.k_proj.weight"] = tensors[f"{layer}.k_proj.weight"].repeat(2, 1)
    save_file(tensors, folder / WEIGHTS)
    refused(load_paligemma, model, folder, f"'{layer}.q_proj.weight' is (48, 64) where (64, 64)")


def test_shards_that_are_lost_cut_or_beside_the_index_are_refused(published, tmp_path):
    folder, model = paligemma_folder(published, tmp_path / "p", shards=True), micro()
    index = json.loads((folder / INDEX).read_text())
    places = index["weight_map"]
    name = places["language_model.model.layers.1.mlp.up_proj.weight"]
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    refused(load_paligemma, model, folder, folder / name, "copy it again")
    (folder / name).unlink()
    refused(load_paligemma, model, folder, folder / name)
    (folder / name).write_bytes(content)
    for key, place, words in (
        ("new", name, "says that"),
        ("new", "../other", "not a file beside it"),
    ):
        document = index | {"weight_map": places | {key: place}}
        (folder / INDEX).write_text(json.dumps(document))
        refused(load_paligemma, model, folder, INDEX, words)
    (folder / INDEX).write_text("{}")
    refused(load_paligemma, model, folder, folder / INDEX, "weight_map")
    (folder / INDEX).unlink()
    refused(load_paligemma, model, folder, folder, "neither")


def test_a_model_without_values_cannot_be_filled(published, tmp_path):
    folder = paligemma_folder(published, tmp_path / "p")
    with torch.device("meta"):
        empty = SpearModel(MICRO)
    with pytest.raises(ValueError, match=r"no values yet: make it by spear.build"):
        load_paligemma(empty, folder)
