"""Questions between the image and space: where a point appears, and what a pixel shows."""

from spear_policy.model.text.answer_types import AnswerError, Pixel, Point
from spear_training.annotation.items import Intrinsics
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX
from spear_training.vqa.draws import Draws
from spear_training.vqa.object_questions import KEYPOINTS, NO_THING, keypoint_m
from spear_training.vqa.pairs import NotAsked, Pair
from spear_training.vqa.scene import Scene
from spear_training.vqa.templates import phrase


def ask_backprojection(scene: Scene, draws: Draws) -> Pair:
    """Ask where in the image a point is: a sample point or a keypoint of an object.

    The answer is the place of the exact point; the question can only say it in 3D tokens.

    Raises:
        NotAsked: there is no object or no camera, or the camera does not see the point.
    """
    if scene.intrinsics is None:
        raise NotAsked("the intrinsics of the picture are not known")
    if not scene.things:
        raise NotAsked(NO_THING)
    thing = draws.pick(scene.things)
    samples = thing.stored.sample_m
    if samples and draws.below(2):
        number = draws.below(len(samples))
        subject, point = (thing.name, number), samples[number]
    else:
        what = draws.pick(KEYPOINTS)
        subject, point = (thing.name, what), keypoint_m(thing, what)
    pixel = pixel_of(point, scene.intrinsics)
    question = phrase(draws, "backprojection", "point").fill(point=Point(point))
    return Pair("backprojection", subject, question, pixel)


def pixel_of(point_m: tuple[float, float, float], camera: Intrinsics) -> Pixel:
    """Where the picture of 840x630 shows a point (camera frame).

    Raises:
        NotAsked: it is behind the camera or outside the picture.
    """
    if point_m[2] <= 0:
        raise NotAsked("the point is behind the camera")
    return _pixel(*camera.project(point_m).tolist())


def ask_pixel_point(scene: Scene, draws: Draws) -> Pair:
    """Ask which point a random pixel shows: the paper's baseline, without objects.

    Raises:
        NotAsked: the record has no such pixels.
    """
    if not scene.pixel_points:
        raise NotAsked("the record has no random pixels")
    number = draws.below(len(scene.pixel_points))
    u, v, *point = scene.pixel_points[number]
    question = phrase(draws, "pixel_points", "pixel").fill(pixel=_pixel(u, v))
    return Pair("pixel_points", (number,), question, Point(point))


def _pixel(u_px: float, v_px: float) -> Pixel:
    """Intrinsics count from the centre of the top left pixel, `Pixel` from its corner."""
    try:
        return Pixel.from_pixels(u_px + 0.5, v_px + 0.5, PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX)
    except AnswerError:
        raise NotAsked("the point is outside the picture") from None
