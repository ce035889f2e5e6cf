"""Hand-made annotations with known geometry, and runs written to a folder, for tests of questions.

All objects are boxes along the camera's axes, so every number can be worked out in the head.
"""

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import strategies as st

from spear_policy.model.answers import AnswerGrammar
from spear_policy.model.config import small
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.model.tokenizer import train_tokenizer
from spear_training.annotation.records import AnnotatedObject, Annotation, Intrinsics, Item
from spear_training.annotation.run_folder import Shard, agree_on_run

CAMERA = Intrinsics(fx=700.0, fy=600.0, cx=419.5, cy=314.5)
WIDE_BINS = CoordinateBins.normal(0.5, 1.5, -6.0, 8.0, 1024)
GRAMMAR = AnswerGrammar(train_tokenizer(small().vocabulary), WIDE_BINS)


def _triple(numbers):
    return tuple(float(number) for number in numbers)


def thing(label="mug", centre=(0.0, 0.0, 1.0), sides=(0.2, 0.1, 0.4)):
    """Return an object; its cloud is the corners of its box and its centre."""
    centre, sides = np.array(centre, float), np.array(sides, float)
    corners = centre + (np.array(list(product((0, 1), repeat=3))) - 0.5) * sides
    ranges = np.linalg.norm(corners, axis=1)
    return AnnotatedObject(
        label=label,
        box_xyxy_px=(400.0, 300.0, 440.0, 330.0),
        mask={"size": [630, 840], "counts": "0"},
        score=0.5,
        cloud_size=9,
        closest_m=_triple(corners[ranges.argmin()]),
        furthest_m=_triple(corners[ranges.argmax()]),
        vertices_m=tuple(map(_triple, corners)),
        sample_m=tuple(map(_triple, [*corners, centre])),
    )


def picture(*things, name="shelf/1", **changes):
    """Return an annotation of these objects."""
    annotation = Annotation(
        id=name,
        image=f"pictures/{name}.jpg",
        status="ok" if things else "empty",
        reason=None if things else "nothing was detected",
        intrinsics=CAMERA,
        objects=things,
        pixel_points=((99.0, 199.0, -0.5, -0.2, 1.1), (419.0, 314.0, 0.0, 0.0, 1.5)),
    )
    return replace(annotation, **changes)


MUG = thing("mug", (-0.3, 0.1, 1.0), (0.1, 0.2, 0.1))
BOWL = thing("bowl", (0.4, 0.0, 1.5), (0.3, 0.2, 0.3))
BOARD = thing("red cutting board", (0.0, 0.4, 2.5), (0.6, 0.1, 0.8))
SHELF = picture(MUG, BOWL, BOARD)


def shelf(number):
    """Return a picture of three objects whose places depend on its number."""
    draw = np.random.default_rng(number)
    shift = draw.uniform(-0.2, 0.2, (3, 3))
    places = [(-0.3, 0.1, 1.0), (0.4, 0.0, 1.5), (0.0, 0.4, 2.5)]
    objects = [
        thing(label, place + moved, draw.uniform(0.1, 0.4, 3))
        for label, place, moved in zip(("mug", "bowl", "plate"), places, shift, strict=True)
    ]
    return picture(*objects, name=f"shelf/{number}")


def write_run(folder, annotations, num_shards=2):
    """Write annotations as `annotate run` leaves them; pictures would be in `pictures`."""
    out, images = folder / "records", folder / "images"
    for place in (out, images):
        place.mkdir(parents=True, exist_ok=True)
    items = [Item(each.id, each.image) for each in annotations]
    agree_on_run(out, [], items, images, num_shards, "hand-made")
    for index in range(num_shards):
        shard = Shard(index, num_shards)
        lines = [each.to_json() + "\n" for each in shard.part_of(annotations)]
        shard.file(out).write_text("".join(lines))
    return out


_length = st.floats(0.01, 1.0)
_place = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.3, 5))
_labels = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    ["mug", "coffee_mug", "the bowl", "red cutting board", "<coord0001>", "pair of scissors"]
)
things = st.builds(thing, _labels, _place, st.tuples(_length, _length, _length))
pictures = st.builds(
    lambda objects, name, camera: picture(*objects, name=name, intrinsics=camera),
    st.lists(things, max_size=6),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20),
    st.sampled_from([CAMERA, None]),
)
