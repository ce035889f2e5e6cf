"""The sampler at batch 1 with what is constant kept: the fast path behind the engine.

Three things can be switched on. Text buckets give static shapes. `compile` hands the two halves
of the sampler to torch.compile. `graphs` records each half once per bucket as a CUDA graph, all
denoising steps in one, and replays it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_policy.model.config import STATE_DIM
from spear_policy.model.prompts import bucket
from spear_policy.model.sampling import PrefixCache, Sampler
from spear_policy.model.spear import ModelInputs, SpearModel

GRAPH_WARM_UPS = 3  # runs before recording, as torch asks for


@dataclass
class Buffers:
    """What belongs to one text length; it stays at the same addresses.

    Attributes:
        inputs: batch 1; filled anew for each chunk.
        noise: (1, H, D) to start from.
        prefix: what reading left; its tensors are written again by the next reading.
        actions: (1, H, D) of the last denoising.
    """

    inputs: ModelInputs
    noise: Tensor
    prefix: PrefixCache | None = None
    actions: Tensor | None = None
    graphs: tuple | None = None


class ChunkRunner:
    """Draws one chunk at a time.

    Attributes:
        sampler: what it runs.
        device: of the model.
    """

    def __init__(
        self,
        model: SpearModel,
        *,
        steps: int | None = None,
        absent: Sequence[str] = (),
        buckets: bool = False,
        compile: bool = False,
        graphs: bool = False,
    ):
        """Prepare; `warm_up` makes everything that takes long.

        Args:
            model: in eval mode, on its device.
            steps: denoising steps; the configuration's when not given.
            absent: cameras that there are none of: black, encoded once and for all.
            buckets: pad prompts to one of few lengths; `compile` and `graphs` imply it.
            compile: use torch.compile (minutes at the first chunk of each length).
            graphs: use CUDA graphs.

        Raises:
            ValueError: graphs without a GPU, or a camera that the model does not have.
        """
        self.sampler, self.device = Sampler(model, steps), model.tokens.words.device
        if graphs and self.device.type != "cuda":
            raise ValueError(f"CUDA graphs need a GPU, the model is on {self.device}")
        names = [camera.name for camera in model.config.cameras]
        unknown = sorted(set(absent) - set(names))
        if unknown:
            raise ValueError(f"no camera {unknown[0]!r}: the model has {', '.join(names)}")
        self._config, self._absent = model.config, frozenset(absent)
        self._static, self._graphs = buckets or compile or graphs, graphs
        self._read, self._denoise = self.sampler.read, self.sampler.denoise
        if compile:
            self._read = torch.compile(self._read, dynamic=False)
            self._denoise = torch.compile(self._denoise, dynamic=False)
        self._kept: dict[int, Buffers] = {}
        self._black: list[Tensor | None] = [
            self._black_tokens(camera) if camera.name in self._absent else None
            for camera in model.config.cameras
        ]

    def warm_up(self) -> None:
        """Run once for every length that can come, which also compiles and records."""
        longest = self._config.max_text_tokens
        lengths = {longest}
        if self._static:
            lengths = {bucket(count, longest) for count in range(1, longest + 1)}
        for length in sorted(lengths):
            self.load({}, [self._config.vocabulary.bos_id] * length, torch.zeros(STATE_DIM))
            self.run()

    def load(self, images: dict[str, Tensor], ids: Sequence[int], state: Tensor) -> None:
        """Take an observation.

        Args:
            images: (3, H, W) uint8 by camera; a camera without one is black.
            ids: of the prompt, at most `max_text_tokens`.
            state: (8,) float.
        """
        length = bucket(len(ids), self._config.max_text_tokens) if self._static else len(ids)
        if length not in self._kept:
            self._kept[length] = self._make(length)
        self._now = now = self._kept[length]
        for camera, buffer in zip(self._config.cameras, now.inputs.images, strict=True):
            if camera.name in images:
                buffer[0].copy_(images[camera.name], non_blocking=True)
            else:
                buffer.zero_()
        padded = torch.full((length,), self._config.vocabulary.pad_id)
        padded[: len(ids)] = torch.tensor(ids)
        now.inputs.text_ids[0].copy_(padded, non_blocking=True)
        if now.inputs.text_valid is not None:
            valid = torch.arange(length) < len(ids)
            now.inputs.text_valid[0].copy_(valid, non_blocking=True)
        now.inputs.state[0].copy_(state, non_blocking=True)

    def run(self, noise: Tensor | None = None) -> Tensor:
        """Draw the chunk of what was loaded.

        Args:
            noise: (1, H, D) on any device; drawn when not given.

        Returns:
            (H, D) fp32 on the model's device; valid until the next run.
        """
        now = self._now
        if noise is None:
            noise = self.sampler.flow.noise(1, self._config.chunk_length, device=self.device)
        now.noise.copy_(noise, non_blocking=True)
        self.read()
        self.denoise()
        return now.actions[0]

    def read(self) -> None:
        """First half: images, text and state."""
        now = self._now
        if self._graphs:
            self._recorded(now)[0].replay()
        else:
            self._read_into(now)

    def denoise(self) -> None:
        """Second half: from noise to actions."""
        now = self._now
        if self._graphs:
            self._recorded(now)[1].replay()
        else:
            now.actions = self._denoise(now.prefix, now.noise)

    def _make(self, length):
        config, device = self._config, self.device
        images = tuple(
            torch.zeros(1, 3, c.height, c.width, dtype=torch.uint8, device=device)
            for c in config.cameras
        )
        ids = torch.zeros(1, length, dtype=torch.long, device=device)
        inputs = ModelInputs(
            images,
            ids,
            torch.ones_like(ids, dtype=torch.bool) if self._static else None,
            torch.zeros(1, STATE_DIM, device=device),
            self._present(),
        )
        noise = torch.zeros(1, config.chunk_length, config.flow.action_dim, device=device)
        return Buffers(inputs, noise)

    def _present(self):
        if not self._absent:
            return None
        present = [camera.name not in self._absent for camera in self._config.cameras]
        return torch.tensor([present], device=self.device)

    def _read_into(self, now):
        cache = now.prefix.kv_cache if now.prefix else None
        if cache is None:
            cache = self.sampler.new_cache(*now.inputs.text_ids.shape)
        cache.length = 0
        now.prefix = self._read(now.inputs, cache, self._image_tokens(now.inputs))

    @torch.no_grad()
    def _image_tokens(self, inputs):
        """None when every camera has to be encoded: the sampler does that itself."""
        if not self._absent:
            return None
        cameras = zip(inputs.images, self._black, strict=True)
        seen = [image for image, black in cameras if black is None]
        tokens = iter(())
        if seen:
            counts = [
                n for n, b in zip(self._config.image_tokens, self._black, strict=True) if b is None
            ]
            tokens = iter(self.sampler.image_tokens(seen).split(counts, dim=1))
        return torch.cat([next(tokens) if b is None else b for b in self._black], dim=1)

    @torch.no_grad()
    def _black_tokens(self, camera):
        black = torch.zeros(1, 3, camera.height, camera.width, dtype=torch.uint8)
        return self.sampler.image_tokens([black.to(self.device)])

    def _recorded(self, now):
        """The CUDA graphs of both halves, recorded at first use."""
        if now.graphs is None:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(GRAPH_WARM_UPS):
                    self._read_into(now)
                    now.actions = self._denoise(now.prefix, now.noise)
            torch.cuda.current_stream().wait_stream(stream)
            reading, denoising = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(reading):
                self._read_into(now)
            with torch.cuda.graph(denoising):
                now.actions = self._denoise(now.prefix, now.noise)
            now.graphs = reading, denoising
        return now.graphs
