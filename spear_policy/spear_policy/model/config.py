"""What a SPEAR model is made of: its sizes, and every choice that changes its numbers.

One frozen `ModelConfig` describes a model completely and is what a checkpoint's config.json
holds. Where the paper leaves a choice open, the reason for the default is in docs/model.md.

Presets: spear1 and spear_vlm are the paper's; pi0_paligemma is its baseline without the depth
encoder; small and tiny have every part of spear1 at a size for one GPU and for a CPU.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from spear_policy.shared.config import ConfigError, read_dataclass

STATE_DIM = 8  # position (3), unit quaternion wxyz (4), gripper (1)
ROTATION_DIMS = {"s3": 4, "r4": 4, "matrix": 9, "euler": 3}


@dataclass(frozen=True)
class CameraConfig:
    """One camera of the model: its name on the graph and its image size in pixels."""

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class SiglipConfig:
    """The SigLIP encoder (no class token, no pooling head).

    Attributes:
        position_grid: side of the square table of learned positions.
        position_interpolation: how the table is resampled to the image's grid. The two differ by
            a fifth of the table's norm, so a checkpoint has to say it.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    position_grid: int = 16
    position_interpolation: Literal["bicubic", "bilinear"] = "bicubic"


@dataclass(frozen=True)
class DepthEncoderConfig:
    """MoGe's DINOv2 encoder.

    Attributes:
        output_layers: whose outputs, after the shared final norm, are concatenated; 0-based.
            MoGe v1: the last four. MoGe v2: 5, 11, 17, 23.
        position_grid: side of the square table of learned positions.
        position_offset: MoGe resamples its table by the factor (cells + offset) / grid.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    output_layers: tuple[int, ...]
    position_grid: int = 37
    position_offset: float = 0.1

    @property
    def output_width(self) -> int:
        """Width of the concatenated features."""
        return self.width * len(self.output_layers)


@dataclass(frozen=True)
class LanguageConfig:
    """The Gemma decoder; multi-query attention: one key/value head for all query heads."""

    width: int
    layers: int
    mlp_width: int
    heads: int
    head_dim: int
    rope_base: float = 10_000.0


@dataclass(frozen=True)
class ExpertConfig:
    """The action expert: a second set of weights in the decoder's layers.

    Layers, heads and head_dim are the decoder's: both take part in the same attention.
    """

    width: int
    mlp_width: int
    time_min_period: float = 4e-3
    time_max_period: float = 4.0


@dataclass(frozen=True)
class VocabularyConfig:
    """Where the token ids lie.

    The order is PaliGemma's: words [0, size) with the <loc> tokens among them, then <image>
    (which has no row: images enter as embeddings), then the 3D tokens in a table of their own.
    """

    size: int
    loc_begin: int
    loc_tokens: int
    coordinate_tokens: int
    pad_id: int = 0
    eos_id: int = 1
    bos_id: int = 2

    @property
    def image_id(self) -> int:
        """The id of <image>."""
        return self.size

    @property
    def coordinate_begin(self) -> int:
        """The id of the first 3D token."""
        return self.size + 1

    @property
    def end(self) -> int:
        """One more than the largest id."""
        return self.coordinate_begin + self.coordinate_tokens


@dataclass(frozen=True)
class FlowConfig:
    """Flow matching of the chunk: how rotation is represented, trained and integrated.

    Attributes:
        rotation: s3: quaternions on the sphere (the paper's). r4: quaternions as plain vectors.
            matrix: nine numbers, orthonormalised by Gram-Schmidt. euler: three angles in rad.
        rotation_frame: axes in which a rotation delta is written (the wire is end_effector).
        noise_sign: of s3. half: noise keeps w >= 0 (as at inference). shortest: noise is flipped
            to the target's side.
        rotation_velocity_loss: Eq. 8 (cosine, normalised) or the squared error.
        rotation_geometric_loss: chordal is Eq. 9; angle is the geodesic one in rad.
            cosine needs one: it does not teach the speed. Both are of every representation; see
            `rotation_flows`.
        rot_geo_scale: inv_delta divides the geometric loss by its step, which lets short
            trainings learn the speed near tau = 1.
        time_alpha, time_beta, time_scale: tau = time_scale * (1 - b), b ~ Beta(alpha, beta).
        min_delta: smallest step of the geometric loss, in tau.
        steps: Euler steps of a sampled chunk.
    """

    rotation: Literal["s3", "r4", "matrix", "euler"] = "s3"
    rotation_frame: Literal["end_effector", "base"] = "end_effector"
    noise_sign: Literal["half", "shortest"] = "half"
    rotation_velocity_loss: Literal["cosine", "mse"] = "cosine"
    rotation_geometric_loss: Literal["chordal", "chordal_sq", "angle", "none"] = "chordal"
    rot_geo_scale: Literal["none", "inv_delta"] = "none"
    time_alpha: float = 1.5
    time_beta: float = 1.0
    time_scale: float = 0.999
    min_delta: float = 0.01
    steps: int = 10

    @property
    def rotation_dims(self) -> int:
        """Numbers that the network reads and writes for one rotation."""
        return ROTATION_DIMS[self.rotation]

    @property
    def action_dim(self) -> int:
        """Translation (3), rotation, gripper (1)."""
        return 3 + self.rotation_dims + 1


@dataclass(frozen=True)
class ModelConfig:
    """A whole model.

    Attributes:
        depth: looks at the same pixels as SigLIP; the image tokens are the mean of both
            projectors' outputs. None: SigLIP alone.
        expert: None for a vision-language model without actions (stage 1).
        depth_projector_init: zero starts stage 1 from half of SigLIP's contribution alone.
        mask_missing_camera: hide a missing camera's tokens in place of attending to a black image.
    """

    name: str
    patch_size: int
    cameras: tuple[CameraConfig, ...]
    siglip: SiglipConfig
    language: LanguageConfig
    vocabulary: VocabularyConfig
    depth: DepthEncoderConfig | None = None
    expert: ExpertConfig | None = None
    flow: FlowConfig = field(default_factory=FlowConfig)
    chunk_length: int = 5
    max_text_tokens: int = 48
    depth_projector_init: Literal["normal", "zero"] = "normal"
    mask_missing_camera: bool = False

    def __post_init__(self):
        """Refuse what cannot be built.

        Raises:
            ConfigError: with the field and the reason.
        """
        _check(self)

    def grid(self, camera: CameraConfig) -> tuple[int, int]:
        """Rows and columns of a camera's patches."""
        return camera.height // self.patch_size, camera.width // self.patch_size

    @property
    def image_tokens(self) -> tuple[int, ...]:
        """Tokens of each camera, in the order of `cameras`."""
        return tuple(rows * columns for rows, columns in map(self.grid, self.cameras))

    def to_dict(self) -> dict:
        """Plain numbers, strings, lists and dicts, for config.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "ModelConfig":
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: an unknown, missing or wrongly typed field; it is named.
        """
        return read_dataclass(cls, values, "config")


# What whole numbers may be; the others are from 1 to a million.
_LIMITS = dict.fromkeys(("layers", "steps", "chunk_length", "max_text_tokens"), (1, 1000))
_FROM_0 = (
    "output_layers",
    "loc_begin",
    "loc_tokens",
    "coordinate_tokens",
    "pad_id",
    "eos_id",
    "bos_id",
)
_LIMITS |= dict.fromkeys(_FROM_0, (0, 10**6))


def _numbers(part, where: str = "") -> Iterator[tuple[str, str, int | float]]:
    """Each number of a dataclass and of those in it: its place, its field's name, its value."""
    for each in dataclasses.fields(part):
        value, place = getattr(part, each.name), f"{where}{each.name}"
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item):
                yield from _numbers(item, f"{place}.")
            elif isinstance(item, int | float) and not isinstance(item, bool):
                yield place, each.name, item


def _check(config: ModelConfig) -> None:
    def need(condition, name, text):
        if not condition:
            raise ConfigError(f"{config.name}: {name} {text}")

    for place, name, value in _numbers(config):
        if isinstance(value, float):
            need(math.isfinite(value), place, f"is {value}: it must be a finite number")
        else:
            least, most = _LIMITS.get(name, (1, 10**6))
            text = f"must be at least {least} and at most {most}, not {value}"
            need(least <= value <= most, place, text)
    need(config.cameras, "cameras", "must name at least one camera")
    names = [camera.name for camera in config.cameras]
    need(len(set(names)) == len(names), "cameras", f"has a name twice: {names}")
    for camera in config.cameras:
        fits = camera.width % config.patch_size == 0 == camera.height % config.patch_size
        need(
            fits,
            f"camera {camera.name}",
            f"is {camera.width}x{camera.height}: both must be multiples of the patch size "
            f"{config.patch_size}",
        )
    for name, part in (("siglip", config.siglip), ("depth", config.depth)):
        if part:
            need(part.width % part.heads == 0, f"{name}.width", "must be a multiple of its heads")
    if config.depth:
        layers = config.depth.output_layers
        ordered = list(layers) == sorted(set(layers))
        inside = layers and 0 <= layers[0] and layers[-1] < config.depth.layers
        need(ordered and inside, "depth.output_layers", "must ascend within the layers")
        need(0 <= config.depth.position_offset < 1, "depth.position_offset", "must be in [0, 1)")
    need(config.language.head_dim % 2 == 0, "language.head_dim", "must be even (rotary halves)")
    need(config.language.rope_base > 1, "language.rope_base", "must be above 1")
    if config.expert:
        need(config.expert.width % 2 == 0, "expert.width", "must be even (time embedding)")
        ordered = 1e-6 <= config.expert.time_min_period < config.expert.time_max_period <= 1e6
        text = "must be in [1e-6, 1e6], the first the smaller"
        need(ordered, "expert.time_min_period, time_max_period", text)
    words = config.vocabulary
    inside = words.loc_begin >= 0 and words.loc_begin + words.loc_tokens <= words.size
    need(inside, "vocabulary.loc_begin", "puts <loc> tokens outside the vocabulary")
    last = max(words.pad_id, words.eos_id, words.bos_id)
    need(last < words.size, "vocabulary.pad_id, eos_id, bos_id", "must be below its size")
    flow = config.flow
    inside = (
        0 < min(flow.time_alpha, flow.time_beta) and max(flow.time_alpha, flow.time_beta) <= 100
    )
    need(inside, "flow.time_alpha, time_beta", "must be in (0, 100]")
    need(0 < flow.time_scale <= 1, "flow.time_scale", "must be in (0, 1]")
    need(
        flow.noise_sign == "half" or flow.rotation == "s3",
        "flow.noise_sign",
        f"is 'shortest', which is of rotation 's3' and not of {flow.rotation!r}: set it to 'half'",
    )
    if flow.rotation_geometric_loss == "none":
        need(
            flow.rotation_velocity_loss == "mse",
            "flow.rotation_velocity_loss",
            "is 'cosine' and rotation_geometric_loss is 'none', so nothing would teach the speed "
            "of a rotation: set the first to 'mse', or the second to 'chordal'",
        )
        need(flow.rot_geo_scale == "none", "flow.rot_geo_scale", "scales a loss that is 'none'")
    need(0 < flow.min_delta < 1, "flow.min_delta", "must be in (0, 1)")


# Presets -----------------------------------------------------------------------------------------


_FULL_CAMERAS = (CameraConfig("external", 280, 210), CameraConfig("wrist", 112, 112))


def spear1() -> ModelConfig:
    """SPEAR-1 as the paper describes it: 3.55 billion parameters."""
    return replace(spear_vlm(), name="spear1", expert=ExpertConfig(width=1024, mlp_width=4096))


def spear_vlm() -> ModelConfig:
    """SPEAR-VLM, the model of stage 1: PaliGemma-3B with MoGe's encoder and 1024 3D tokens."""
    return ModelConfig(
        name="spear_vlm",
        patch_size=14,
        cameras=_FULL_CAMERAS,
        siglip=SiglipConfig(width=1152, layers=27, heads=16, mlp_width=4304),
        depth=DepthEncoderConfig(
            width=1024, layers=24, heads=16, mlp_width=4096, output_layers=(20, 21, 22, 23)
        ),
        language=LanguageConfig(width=2048, layers=18, mlp_width=16384, heads=8, head_dim=256),
        vocabulary=VocabularyConfig(
            size=257_152, loc_begin=256_000, loc_tokens=1024, coordinate_tokens=1024
        ),
    )


def pi0_paligemma() -> ModelConfig:
    """The paper's baseline: spear1 without a depth encoder, on plain PaliGemma."""
    return replace(spear1(), name="pi0_paligemma", depth=None)


def small() -> ModelConfig:
    """27 million parameters, the paper's images (`model_info --preset small`)."""
    return ModelConfig(
        name="small",
        patch_size=14,
        cameras=_FULL_CAMERAS,
        siglip=SiglipConfig(width=256, layers=6, heads=4, mlp_width=1024),
        depth=DepthEncoderConfig(
            width=256, layers=8, heads=4, mlp_width=1024, output_layers=(4, 5, 6, 7)
        ),
        language=LanguageConfig(width=384, layers=6, mlp_width=1152, heads=6, head_dim=64),
        vocabulary=VocabularyConfig(
            size=2048, loc_begin=1024, loc_tokens=1024, coordinate_tokens=1024
        ),
        expert=ExpertConfig(width=192, mlp_width=768),
    )


def tiny() -> ModelConfig:
    """5.5 million parameters and small images, for tests and the demo on a CPU."""
    return ModelConfig(
        name="tiny",
        patch_size=14,
        cameras=(CameraConfig("external", 112, 84), CameraConfig("wrist", 56, 56)),
        siglip=SiglipConfig(width=128, layers=4, heads=4, mlp_width=256),
        depth=DepthEncoderConfig(
            width=128, layers=6, heads=4, mlp_width=512, output_layers=(2, 3, 4, 5)
        ),
        language=LanguageConfig(width=192, layers=4, mlp_width=768, heads=4, head_dim=48),
        vocabulary=VocabularyConfig(size=512, loc_begin=448, loc_tokens=64, coordinate_tokens=64),
        expert=ExpertConfig(width=128, mlp_width=512),
    )


PRESETS = {make.__name__: make for make in (spear1, spear_vlm, pi0_paligemma, small, tiny)}


def preset(name: str) -> ModelConfig:
    """Return the configuration of that name.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]()
