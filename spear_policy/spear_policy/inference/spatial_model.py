"""A stage-1 model that says where things are: a picture and a question in, a place in 3D out.

What training leaves for the node `spatial_query`: a folder with weights, tokenizer and the bins of
the 3D tokens. Answers are read strictly: one that is not of its kind is an error, not a guess.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose
from spear_policy.inference.image_geometry import fit
from spear_policy.inference.spear_engine import choose_device, choose_dtype
from spear_policy.model.answers import Answer, AnswerError, AnswerGrammar, Box, Point
from spear_policy.model.checkpoint import load_weights
from spear_policy.model.coordinate_bins import BINS_FILE, CoordinateBins
from spear_policy.model.prompts import prompt_ids
from spear_policy.model.sampling import answer
from spear_policy.model.spear import ModelInputs, SpearModel

RECORD_FILE = "training.json"
KINDS = ("box", "point", "distance", "length", "words")
# How an object is asked for: words that stage 1 trains on (vqa/templates.yaml of spear_training).
BY_LABEL = {
    "box": "Give the oriented 3D box of the {label}.",
    "point": "Where is the centre of the {label}?",
}
LONGEST_QUESTION = 128  # tokens
LONGEST_ANSWER = 40  # tokens; a box has 25


@dataclass(frozen=True)
class Place:
    """Where something is, in one frame.

    Attributes:
        pose: its centre; the axes of its box.
        size_m: (3,) of the box along its axes; zeros for a point.
    """

    pose: Pose
    size_m: NDArray[np.float64]

    def seen_from(self, camera: Pose) -> "Place":
        """The same place in the frame in which `camera` is the camera's pose."""
        position = camera.position_m + quat.rotate(camera.orientation_xyzw, self.pose.position_m)
        turned = quat.multiply(camera.orientation_xyzw, self.pose.orientation_xyzw)
        return Place(Pose(position, turned), self.size_m)


_OTHERS = ((1, 2), (0, 2), (0, 1))  # of each axis of the corners, the other two


def place_of_box(vertices_m: ArrayLike) -> Place:
    """The box that fits eight corners best.

    The corners that a model says are each a bin off, so they are no exact box. Its axes are the
    orthonormal ones nearest to the mean edges (Procrustes), its size the mean edges along them.

    Args:
        vertices_m: (8, 3); corner 4 i + 2 j + k lies on side i, j, k (0 or 1) of the box's x, y, z.

    Raises:
        AnswerError: the corners span no box: two of its sides are as good as nothing.
    """
    corners = np.asarray(vertices_m, float).reshape(2, 2, 2, 3)
    edges = np.stack([np.diff(corners.mean(axis=(a, b)), axis=0)[0] for a, b in _OTHERS], axis=1)
    left, lengths, right = np.linalg.svd(edges)
    if lengths[1] < 1e-6:
        raise AnswerError("the eight corners lie on a line: the answer is no box")
    if np.linalg.det(left @ right) < 0:  # mirrored: the axis that weighs least gives way
        left[:, 2] *= -1
    axes = left @ right
    size_m = np.abs(np.sum(axes * edges, axis=0))
    orientation = Rotation.from_matrix(axes).as_quat()
    return Place(Pose(corners.mean(axis=(0, 1, 2)), orientation), size_m)


@dataclass(frozen=True)
class SpatialAnswer:
    """What the model said.

    Attributes:
        text: the answer as it was written.
        numbers_m: of the answer, in the camera's frame; empty for words.
        place: of a box or a point, in the camera's frame (x right, y down, z forward); else None.
        inference_s: what it took.
    """

    text: str
    numbers_m: tuple[float, ...]
    place: Place | None
    inference_s: float


def question_of(label: str, question: str, kind: str) -> tuple[str, str]:
    """What to ask, and for which kind of answer.

    Raises:
        ValueError: neither label nor question, or both; or no such kind for it.
    """
    label, question, kind = label.strip(), question.strip(), kind.strip() or "box"
    if bool(label) == bool(question):
        raise ValueError(
            "give either label, the object to find, or question, a whole question"
            + (": both are set" if label else ": both are empty")
        )
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    if not label:
        return question, kind
    if kind not in BY_LABEL:
        raise ValueError(f"kind {kind} needs a whole question; by label: {', '.join(BY_LABEL)}")
    return BY_LABEL[kind].format(label=label), kind


class SpatialModel:
    """A stage-1 model with its tokenizer and its bins. Not thread-safe.

    Attributes:
        metric: its lengths are metres; otherwise they have the unit of its annotations' depth.
    """

    def __init__(self, model: SpearModel, grammar: AnswerGrammar, metric: bool):
        """Take what belongs together; `load` reads it from a folder."""
        self.metric = metric
        self._model, self._grammar = model.eval(), grammar

    @classmethod
    def load(
        cls, folder: Path | str, *, device: str = "auto", dtype: str = "auto", threads: int = 0
    ) -> "SpatialModel":
        """Read a folder that a training of stage 1 has left.

        Args:
            device, dtype: by name, as the parameters of the node have them.
            threads: of torch on a CPU, in this process; 0 leaves it to torch.

        Raises:
            ValueError: something is missing or damaged, or it is no stage-1 model; names the fix.
        """
        folder, chosen = Path(folder), choose_device(device)
        if threads:
            torch.set_num_threads(threads)
        bins = _json(folder / BINS_FILE)
        hashes = _json(folder / RECORD_FILE).get("file_hashes", {})
        model, tokenizer = load_weights(
            folder,
            device=chosen,
            dtype=choose_dtype(dtype, chosen),
            expected_hashes=hashes,
            progress=False,
        )
        if len(model.config.cameras) != 1:
            raise ValueError(
                f"{folder} is a model with {len(model.config.cameras)} cameras: give the folder "
                "that stage 1 has left, a model with one"
            )
        try:
            edges = CoordinateBins.from_dict({name: bins[name] for name in ("scheme", "edges_m")})
            metric = all(each["metric"] for each in bins["fitted_on"])
            grammar = AnswerGrammar(tokenizer, edges)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / BINS_FILE} holds no bins of this model: {error}") from None
        return cls(model, grammar, metric)

    def warm_up(self) -> None:
        """Answer once, so that the first person does not wait."""
        camera = self._model.config.cameras[0]
        grey = np.full((camera.height, camera.width, 3), 128, np.uint8)
        answer(self._model, self._inputs(grey, BY_LABEL["box"].format(label="box")), 2)

    def ask(self, picture: NDArray[np.uint8], question: str, kind: str) -> SpatialAnswer:
        """Ask about a picture, greedily: the same picture and question give the same answer.

        Args:
            picture: (H, W, 3) RGB of any size; it is scaled and padded to the model's.
            question: in the words of its training.
            kind: of the answer, one of `KINDS`.

        Raises:
            AnswerError: the answer is not of its kind.
            ValueError: the question is empty.
        """
        begun_s = time.perf_counter()
        (ids,) = answer(self._model, self._inputs(picture, question), LONGEST_ANSWER)
        inference_s = time.perf_counter() - begun_s
        try:
            said = self._grammar.parse_answer(kind, ids)
            place = _place(said)
        except AnswerError as error:
            raise AnswerError(
                f"the model's answer to {question!r} is no {kind} ({error}): ask for something "
                "that is in the picture, in words that it was trained on"
            ) from None
        numbers_m = said.coordinates_m() if hasattr(said, "coordinates_m") else ()
        return SpatialAnswer(self._grammar.format_answer(said), numbers_m, place, inference_s)

    def _inputs(self, picture: NDArray[np.uint8], question: str) -> ModelInputs:
        camera, words = self._model.config.cameras[0], self._model.config.vocabulary
        ids = prompt_ids(question, self._grammar.tokenizer, words, LONGEST_QUESTION)
        fitted = torch.from_numpy(fit(picture, camera.width, camera.height))
        device = next(self._model.parameters()).device
        return ModelInputs(
            (fitted.permute(2, 0, 1)[None].contiguous().to(device),),
            torch.tensor([ids], device=device),
            torch.ones(1, len(ids), dtype=torch.bool, device=device),
        )


def _place(said: Answer) -> Place | None:
    if isinstance(said, Box):
        return place_of_box(said.vertices_m)
    if isinstance(said, Point):
        return Place(Pose(np.array(said.xyz_m), np.array([0.0, 0.0, 0.0, 1.0])), np.zeros(3))
    return None


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): give the folder `final` of a training of "
            "stage 1"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): copy the folder again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it must hold an object")
    return found
