"""PaliGemma's weights from a Hugging Face folder, in the layouts that transformers has written.

On disk: `language_model.model...` and `vision_tower.vision_model...` until 4.51, without
`vision_model` since 5; in memory since 4.52 (and in folders written from there) everything
begins with `model.`.
"""

import re
from dataclasses import replace
from pathlib import Path

import torch

from spear_policy.model.checkpoints.filling import Filled, fill, refuse_unknown
from spear_policy.model.checkpoints.layouts import PaligemmaPrefixes, Source, paligemma
from spear_policy.model.checkpoints.tensor_files import (
    CheckpointError,
    TensorFiles,
    open_tensors,
    read_json,
)
from spear_policy.model.language.token_tables import ROWS_AT_ONCE, initialise_coordinates
from spear_policy.model.spear import SpearModel

# Longer ones first where one begins with another.
VISION = (
    "model.vision_tower.vision_model",
    "model.vision_tower",
    "vision_tower.vision_model",
    "vision_tower",
)
PROJECTOR = ("model.multi_modal_projector", "multi_modal_projector")
LANGUAGE = ("model.language_model", "language_model.model")
OUTPUT_TABLES = ("lm_head.weight", "language_model.lm_head.weight", "model.lm_head.weight")
# <image>, one more, and padding to a multiple of 64 (facts/model.md 4.3).
MOST_ROWS_BEYOND = 65
# Buffers of old transformers versions, and SigLIP's pooling head, which PaliGemma never runs.
UNUSED = (
    r"embeddings\.position_ids",
    r"head\.(probe|attention\.(in_proj_weight|in_proj_bias|out_proj\.(weight|bias)))",
    r"head\.(layernorm|mlp\.fc1|mlp\.fc2)\.(weight|bias)",
    r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)


def load_paligemma(
    model: SpearModel, folder: str | Path, *, seed: int = 0, progress: bool | None = None
) -> Filled:
    """Fill SigLIP, its projector, the Gemma layers and the token tables.

    The 3D tokens are drawn around the word embeddings, covariance times 1e-5
    (facts/model.md 4.4). The depth encoder, its projector and the expert stay as they are.

    Args:
        model: with values.
        folder: with config.json and model.safetensors, or its shards and their index.
        seed: of the 3D tokens.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: something is missing, unknown, damaged, of other sizes or not finite;
            names the file and the key. The model is as it was.
        ValueError: the model has no values.
    """
    folder = Path(folder)
    files = open_tensors(folder)
    _check_config(read_json(folder / "config.json"), folder / "config.json", model.config)
    prefixes = PaligemmaPrefixes(
        _prefix(files, VISION, "embeddings.patch_embedding.weight"),
        _prefix(files, PROJECTOR, "linear.weight"),
        _prefix(files, LANGUAGE, "norm.weight"),
    )
    layout = paligemma(model.config, prefixes)
    outputs = [key for key in OUTPUT_TABLES if key in files]
    layout["tokens.words"] = _words(files, layout["tokens.words"], outputs)
    ignored = _ignored(files, prefixes, outputs)
    refuse_unknown(files, layout, ignored, files.where)
    fill(model, layout, files, files.where, progress=progress)
    taken = tuple(layout)
    if model.config.vocabulary.coordinate_tokens:
        _draw_coordinates(model, seed)
        taken += ("tokens.coordinates",)
    return Filled(taken, ignored=ignored)


@torch.no_grad()
def _draw_coordinates(model, seed):
    tables = model.tokens
    generator = torch.Generator(tables.words.device).manual_seed(seed)
    count = len(tables.coordinates)
    tables.coordinates.copy_(initialise_coordinates(tables.words, count, generator=generator))


def _prefix(files: TensorFiles, prefixes, rest):
    for prefix in prefixes:
        if f"{prefix}.{rest}" in files:
            return prefix
    raise CheckpointError(
        f"{files.where} has no tensor '{prefixes[-1]}.{rest}', under any prefix that PaliGemma's "
        "folders use: give the folder of a PaliGemma checkpoint"
    )


def _words(files, source: Source, outputs) -> Source:
    """Find the word table and make sure that it is also the output's; transformers ties them."""
    (key,) = source.keys
    if key not in files and outputs:  # of two names for one tensor, safetensors keeps one
        key, *outputs = outputs
        source = replace(source, keys=(key,))
    if key not in files:
        return source  # reported as missing with the rest
    rows = files.entries[key].shape[0] if files.entries[key].shape else 0
    if rows > source.end + MOST_ROWS_BEYOND:
        raise CheckpointError(
            f"{files.where}: {key!r} has {rows} rows, but the model's vocabulary is {source.end}: "
            "set vocabulary.size to the checkpoint's, without <image> and padding"
        )
    for output in outputs:
        if not _same_rows(files, key, output, source.end):
            raise CheckpointError(
                f"{files.where}: {output!r} is not {key!r}, but the model ties them: use a "
                "PaliGemma whose input and output tables are one"
            )
    return source


def _same_rows(files, first, second, count):
    if files.entries[first].shape != files.entries[second].shape:
        return False
    a, b = files[first], files[second]
    return all(
        torch.equal(a[i : min(i + ROWS_AT_ONCE, count)], b[i : min(i + ROWS_AT_ONCE, count)])
        for i in range(0, count, ROWS_AT_ONCE)
    )


def _ignored(files, prefixes, outputs):
    starts = "|".join(re.escape(prefix) for prefix in (prefixes.vision, prefixes.language))
    pattern = re.compile(rf"({starts})\.({'|'.join(UNUSED)})")
    words = f"{prefixes.language}.embed_tokens.weight"
    tied = outputs if words in files else outputs[1:]
    return tuple(key for key in files if key in tied or pattern.fullmatch(key))


def _check_config(values, path, config):
    """Compare what shapes cannot show: the numbers of heads, and which model it is."""
    if values.get("model_type") != "paligemma":
        raise CheckpointError(
            f"{path} is of a {values.get('model_type')!r} model: give a PaliGemma folder"
        )
    text, vision = (values.get(name) or {} for name in ("text_config", "vision_config"))
    rope = (text.get("rope_parameters") or {}).get("rope_theta", text.get("rope_theta"))
    language = config.language
    comparisons = (
        ("text_config.num_attention_heads", text.get("num_attention_heads"), language.heads),
        ("text_config.num_key_value_heads", text.get("num_key_value_heads"), 1),
        ("text_config.head_dim", text.get("head_dim"), language.head_dim),
        ("text_config.rope_theta", rope, language.rope_base),
        (
            "vision_config.num_attention_heads",
            vision.get("num_attention_heads"),
            config.siglip.heads,
        ),
    )
    for name, theirs, ours in comparisons:
        if theirs is not None and theirs != ours:  # old folders leave out the defaults
            raise CheckpointError(
                f"{path}: {name} is {theirs}, but the model's configuration has {ours}: use the "
                "checkpoint that fits, or change the configuration"
            )
