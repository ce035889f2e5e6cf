"""What a model begins with: published weights (PaliGemma, MoGe's encoder, pi0) or those of stage 1.

    model = build(spear1())
    load_paligemma(model, paligemma_folder)
    load_moge(model, "model.pt")

Each part says what its files look like, refuses what does not fit in one sentence, and fills the
model by its layout. A future SPEAR-1 release is one more table in public_layouts.py.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from spear_policy.model.checkpoint import (
    CONFIG,
    CheckpointError,
    TensorFiles,
    open_tensors,
    plain_name,
    read_json,
)
from spear_policy.model.config import ConfigError, ExpertConfig, ModelConfig
from spear_policy.model.gemma import ROWS_AT_ONCE, initialise_coordinates
from spear_policy.model.public_layouts import (
    Filled,
    PaligemmaPrefixes,
    TensorSource,
    fill,
    moge,
    paligemma,
    pi0_expert,
    refuse_unknown,
)
from spear_policy.model.spear import SpearModel, time_embedding

# A model of stage 1, a folder of ours ------------------------------------------------------------

STAGE1_PARTS = ("patch_size", "siglip", "depth", "language", "vocabulary")


def with_parts_of_stage1(config: ModelConfig, folder: str | Path) -> ModelConfig:
    """The configuration with encoders, language model and vocabulary of a stage-1 folder.

    Raises:
        CheckpointError: the folder has no config.json of this suite.
    """
    path = Path(folder) / CONFIG
    try:
        stage1 = ModelConfig.from_dict(read_json(path))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}; give a folder of stage 1") from None
    return replace(config, **{part: getattr(stage1, part) for part in STAGE1_PARTS})


def load_stage1(model: SpearModel, folder: str | Path, *, progress: bool | None = None) -> Filled:
    """Fill everything but the action expert from a trained SPEAR-VLM.

    Args:
        model: with values; its configuration has the folder's parts, see `with_parts_of_stage1`.
        folder: with config.json and model.safetensors.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: something is missing, unknown, damaged, of other sizes or not finite;
            names the file and the key or the part. The model is as it was.
        ValueError: the model has no values.
    """
    expected = with_parts_of_stage1(model.config, folder)
    for part in STAGE1_PARTS:
        if getattr(expected, part) != getattr(model.config, part):
            raise CheckpointError(
                f"{Path(folder) / CONFIG}: its {part} is not that of {model.config.name}: take "
                "the parts over by with_parts_of_stage1, as make_checkpoint does"
            )
    files = open_tensors(folder)
    names = [name for name, _ in model.named_parameters() if not name.startswith("expert.")]
    layout = {name: TensorSource((name,)) for name in names}
    refuse_unknown(files, layout, (), files.where)
    fill(model, layout, files, files.where, progress=progress)
    return Filled(tuple(layout))


# PaliGemma, a Hugging Face folder ----------------------------------------------------------------

# How the parts' keys end. transformers wrote `vision_tower.vision_model`, `language_model.model`
# until 5.3, the same behind `model.` in 5.4 and 5.5, `vision_tower` alone since 5.6; in memory the
# decoder is `language_model` alone since 4.52. In pi0's checkpoints more stands before these.
VISION = ("vision_tower.vision_model", "vision_tower"), "embeddings.patch_embedding.weight"
PROJECTOR = ("multi_modal_projector",), "linear.weight"
LANGUAGE = ("language_model.model", "language_model"), "norm.weight"
PI0_VLM = "paligemma_with_expert.paligemma."
# <image>, one more, and padding to a multiple of 64.
MOST_ROWS_BEYOND = 65
# Buffers of old transformers versions, and SigLIP's pooling head, which PaliGemma never runs.
PALIGEMMA_UNUSED = (
    r"embeddings\.position_ids",
    r"head\.(probe|attention\.(in_proj_weight|in_proj_bias|out_proj\.(weight|bias)))",
    r"head\.(layernorm|mlp\.fc1|mlp\.fc2)\.(weight|bias)",
    r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)


def load_paligemma(
    model: SpearModel, folder: str | Path, *, seed: int = 0, progress: bool | None = None
) -> Filled:
    """Fill SigLIP, its projector, the Gemma layers and the token tables.

    The 3D tokens are drawn around the word embeddings, covariance times 1e-5. The depth
    encoder, its projector and the expert stay as they are.

    Args:
        model: with values.
        folder: of a PaliGemma, with config.json and model.safetensors, or its shards and their
            index; or of a pi0, or its file: its vision-language half is a PaliGemma.
        seed: of the 3D tokens.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: something is missing, unknown, damaged, of other sizes or not finite;
            names the file and the key. The model is as it was.
        ValueError: the model has no values.
    """
    folder = Path(folder)
    files = open_tensors(folder)
    prefixes = PaligemmaPrefixes(
        _find_prefix(files, *VISION),
        _find_prefix(files, *PROJECTOR),
        _find_prefix(files, *LANGUAGE),
    )
    before, within_pi0, _ = prefixes.language.rpartition(PI0_VLM)
    if not within_pi0:
        _check_config(read_json(folder / "config.json"), folder / "config.json", model.config)
    start = before + within_pi0
    outputs = [key for key in files if key.startswith(start) and key.endswith("lm_head.weight")]
    layout = paligemma(model.config, prefixes)
    # pi0 never looks at its output table: whatever it became does not matter
    tied = not within_pi0
    layout["tokens.words"] = _word_table(files, layout["tokens.words"], outputs, tied)
    ignored = _ignored(files, prefixes, outputs)
    if within_pi0:
        ignored += tuple(key for key in files if not key.startswith(start))
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


def _find_prefix(files: TensorFiles, names, rest):
    for key in files:
        prefix = key.removesuffix(f".{rest}")
        if prefix != key and f".{prefix}".endswith(tuple(f".{name}" for name in names)):
            return prefix
    raise CheckpointError(
        f"{files.where} has no tensor '{names[0]}.{rest}', whatever stands before it: give the "
        "folder of a PaliGemma checkpoint"
    )


def _word_table(files, source: TensorSource, outputs, tied: bool) -> TensorSource:
    """Find the word table; where it is `tied`, make sure that it is the output's too."""
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
    for output in outputs if tied else ():
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
    pattern = re.compile(rf"({starts})\.({'|'.join(PALIGEMMA_UNUSED)})")
    words = f"{prefixes.language}.embed_tokens.weight"
    tied = outputs if words in files else outputs[1:]
    return tuple(key for key in files if key in tied or pattern.fullmatch(key))


def _check_config(values, path, config):
    """Compare what shapes cannot show: the numbers of heads, and which model it is."""
    if values.get("model_type") != "paligemma":
        raise CheckpointError(
            f"{path} is of a {values.get('model_type')!r} model: give a PaliGemma folder"
        )

    def table(part, name):
        found = part.get(name) or {}  # old folders leave out the defaults
        if not isinstance(found, dict):
            raise CheckpointError(f"{path}: {name} is {found!r} and not a table: copy it again")
        return found

    text, vision = table(values, "text_config"), table(values, "vision_config")
    rope = table(text, "rope_parameters").get("rope_theta", text.get("rope_theta"))
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
        if theirs is not None and theirs != ours:
            raise CheckpointError(
                f"{path}: {name} is {theirs}, but the model's configuration has {ours}: use the "
                "checkpoint that fits, or change the configuration"
            )


# MoGe's image encoder, model.pt ------------------------------------------------------------------

DECODER_V1 = ("head.", "image_mean", "image_std")
DECODER_V2 = (
    "encoder.output_projections.",
    "encoder.image_mean",
    "encoder.image_std",
    "neck.",
    "points_head.",
    "mask_head.",
    "normal_head.",
    "scale_head.",
)
# What the encoders' code takes when a file does not say it.
OUTPUTS_V1, OUTPUTS_V2 = 4, (5, 11, 17, 23)


def load_moge(model: SpearModel, path: str | Path, *, progress: bool | None = None) -> Filled:
    """Fill the depth encoder; its projector stays as it is.

    MoGe version 1 has the encoder under `backbone`, version 2 under `encoder.backbone`. Their
    decoders make point maps, which the model does not need.

    Args:
        model: with values and with a depth encoder.
        path: model.pt; only tensors and plain values are unpickled, nothing in it is executed.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: the file is missing, damaged or not MoGe's, its sizes or output layers
            are not the configuration's, or a tensor is missing, unknown or not finite; names the
            key. The model is as it was.
        ValueError: the model has no depth encoder or no values.
    """
    path = Path(path)
    if model.depth is None:
        raise ValueError(f"{model.config.name} has no depth encoder for MoGe's weights")
    tensors, settings, second = _read_moge(path)
    layers, said = _output_layers(settings, second, path, model.config.depth)
    if layers != model.config.depth.output_layers:
        raise CheckpointError(
            f"{said}, so the model must read the layers {list(layers)}, not "
            f"{list(model.config.depth.output_layers)}: set depth.output_layers in its "
            "configuration, as make_checkpoint does"
        )
    layout = moge(model.config, "encoder.backbone" if second else "backbone")
    decoder = DECODER_V2 if second else DECODER_V1
    ignored = tuple(key for key in tensors if key.startswith(decoder))
    refuse_unknown(tensors, layout, ignored, path)
    fill(model, layout, tensors, path, progress=progress)
    return Filled(tuple(layout), ignored=ignored)


def with_layers_of_moge(config: ModelConfig, path: str | Path) -> ModelConfig:
    """The configuration with the output layers that a MoGe file's decoder was trained on.

    Raises:
        CheckpointError: the file is missing, damaged or not MoGe's.
        ValueError: the model has no depth encoder, or not these layers.
    """
    if config.depth is None:
        raise ValueError(f"{config.name} has no depth encoder for MoGe's weights")
    _, settings, second = _read_moge(Path(path))
    layers, _ = _output_layers(settings, second, path, config.depth)
    return replace(config, depth=replace(config.depth, output_layers=layers))


def _read_moge(path):
    try:
        document = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path} ({error.strerror or error}): give MoGe's model.pt"
        ) from None
    except Exception as error:  # a damaged or hostile pickle may raise anything
        first = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is not a whole file of tensors ({first}): get MoGe's model.pt again"
        ) from None
    document = document if isinstance(document, dict) else {}
    tensors, settings = document.get("model"), document.get("model_config")
    named = isinstance(tensors, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    )
    if not named or not isinstance(settings, dict):
        raise CheckpointError(
            f"{path} has no 'model' of named tensors with its 'model_config': give MoGe's model.pt"
        )
    tensors = {plain_name(key): values for key, values in tensors.items()}
    return tensors, settings, any(key.startswith("encoder.backbone.") for key in tensors)


def _output_layers(settings, second, path, depth):
    """The layers that its decoder was trained on, and where that is said."""
    where, default = "model_config.intermediate_layers", OUTPUTS_V1
    if second:
        where, default = "model_config.encoder.intermediate_layers", OUTPUTS_V2
        settings = settings.get("encoder")
    found = settings.get("intermediate_layers", default) if isinstance(settings, dict) else default
    layers = range(depth.layers)[-found:] if isinstance(found, int) else found
    said = f"{path}: {where} is {found!r}"
    if not isinstance(layers, Sequence) or not all(isinstance(layer, int) for layer in layers):
        raise CheckpointError(f"{said}: it must be a number of layers or a list of them")
    return tuple(layers), said


# pi0's action expert, of openpi's torch port or lerobot ------------------------------------------

PI0_EXPERT = "paligemma_with_expert.gemma_expert"
# The vision-language part, the expert's token tables, which nothing looks up, and the statistics
# that lerobot's first port kept among the weights.
PI0_UNUSED = (
    PI0_VLM,
    f"{PI0_EXPERT}.lm_head.",
    f"{PI0_EXPERT}.model.embed_tokens.",
)
PI0_STATISTICS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
# (name, dimension of the weight that is pi0's padded state or action)
PADDED = (("action_in", 1), ("state_in", 1), ("action_out", 0))
MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0


def load_pi0_expert(model: SpearModel, path: str | Path, *, progress: bool | None = None) -> Filled:
    """Fill the action expert: its layers, time MLP and those heads whose dimensions fit.

    pi0's states and actions are padded to 32 numbers and laid out for its own robots, ours are 8;
    a head of another dimension stays as it was and is named in `left`.

    pi0 feeds t = 1 - tau (its 1 is noise) and predicts noise minus data. Both are absorbed into
    the weights, exactly, so the network knows one convention: `reverse_time` changes the time half
    of `time_in`, and `action_out` changes its sign.

    Args:
        model: with values and with an expert of pi0's size.
        path: model.safetensors, or the folder with it or with its shards.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: not a pi0 checkpoint, or something is missing, unknown, of other sizes
            or not finite; names the file and the key. The model is as it was.
        ValueError: the model has no expert or no values, or its time periods are not pi0's.
    """
    expert = model.config.expert
    if expert is None:
        raise ValueError(f"{model.config.name} has no action expert for pi0's weights")
    if (expert.time_min_period, expert.time_max_period) != (MIN_PERIOD, MAX_PERIOD):
        raise ValueError(
            f"expert.time_min_period and time_max_period are {expert.time_min_period} and "
            f"{expert.time_max_period}: pi0's weights need {MIN_PERIOD} and {MAX_PERIOD}"
        )
    files = open_tensors(path)
    prefix = _pi0_prefix(files)
    layout = pi0_expert(model.config, prefix)
    left = _heads_left(model, layout, files)
    unused = [layout.pop(name).keys[0] for name in left]
    starts = tuple(f"{prefix}{start}" for start in PI0_UNUSED) + PI0_STATISTICS
    ignored = tuple(key for key in files if key in unused or key.startswith(starts))
    refuse_unknown(files, layout, ignored, files.where)
    changes = {
        "expert.time_in.weight": lambda weight: reverse_time(weight, expert),
        "expert.action_out.weight": torch.neg,
        "expert.action_out.bias": torch.neg,
    }
    fill(model, layout, files, files.where, changes=changes, progress=progress)
    return Filled(tuple(layout), left=left, ignored=ignored)


def reverse_time(weight: Tensor, expert: ExpertConfig) -> Tensor:
    """Turn a first layer that reads phi(1 - tau) into the one that reads phi(tau).

    With w = 2 pi / T for a period T, sin(w - w tau) = sin w cos(w tau) - cos w sin(w tau) and
    cos(w - w tau) = cos w cos(w tau) + sin w sin(w tau): a fixed reflection of each pair of sine
    and cosine, by which the columns of the time are multiplied.

    Args:
        weight: (width, 2 * width), columns of the action first, then sines, then cosines.

    Returns:
        The same shape, in fp64.
    """
    width = expert.width
    halves = [width, width // 2, width // 2]
    of_action, of_sines, of_cosines = weight.double().split(halves, dim=1)
    whole = torch.ones((), dtype=torch.float64)
    sines, cosines = time_embedding(whole, width, expert).double().chunk(2)
    return torch.cat(
        [
            of_action,
            of_cosines * sines - of_sines * cosines,
            of_sines * sines + of_cosines * cosines,
        ],
        dim=1,
    )


def _pi0_prefix(files):
    for key in files:
        prefix, found, rest = key.partition(f"{PI0_EXPERT}.model.norm.")
        if found and rest == "weight":
            return prefix
        if found and rest == "dense.weight":
            raise CheckpointError(
                f"{files.where} is a pi0.5 checkpoint (its norms depend on time, {key!r}): give "
                "one of pi0"
            )
    raise CheckpointError(
        f"{files.where} has no tensor '{PI0_EXPERT}.model.norm.weight': give a pi0 checkpoint of "
        "openpi's torch port, of lerobot or of transformers"
    )


def _heads_left(model, layout, files):
    """Name our head's weight and bias where the checkpoint's padded dimension is not ours."""
    left = []
    for name, dimension in PADDED:
        weight = f"expert.{name}.weight"
        (key,) = layout[weight].keys
        if key not in files or len(files.entries[key].shape) != 2:
            continue  # reported with the rest
        ours = model.get_parameter(weight).shape[dimension]
        if files.entries[key].shape[dimension] != ours:
            left += [weight, f"expert.{name}.bias"]
    return tuple(left)
