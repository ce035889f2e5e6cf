"""Lists of pictures in COCO's form, instances_*.json: their boxes, polygons and masks as items."""

import json
from collections import defaultdict
from pathlib import Path

from spear_training.annotation.records import (
    GivenObject,
    Item,
    RecordError,
    given_object,
    read_items,
)


def read_list(path: Path) -> list[Item]:
    """Read a list of items, or one of COCO's.

    Raises:
        RecordError: it is neither; names the file and the line, the picture or the annotation.
        OSError: the file cannot be read.
    """
    if path.suffix.lower() != ".json":
        return read_items(path)
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        if not str(error).startswith("Extra data"):  # more than one line: a list of items
            raise RecordError(f"{path} is no JSON ({error})") from None
        values = None
    if isinstance(values, list):
        raise RecordError(
            f"{path} holds results, which name no pictures: give a file with images, annotations "
            "and categories"
        )
    if not isinstance(values, dict) or "images" not in values:
        return read_items(path)
    try:
        return coco_items(values)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None


def coco_items(values: dict) -> list[Item]:
    """Make the items of a data set in COCO's form; the id of a picture is its file's name.

    A picture without annotations has no objects. An annotation with `iscrowd` is a crowd, so that
    none of its kind counts as the only one.

    Raises:
        RecordError: names the picture or the annotation that cannot be used.
    """
    names = {one.get("id"): one.get("name") for one in _dicts(values, "categories")}
    objects: dict[object, list[GivenObject]] = defaultdict(list)
    for one in _dicts(values, "annotations"):
        begin = f"annotation {one.get('id')!r}"
        if not isinstance(name := names.get(one.get("category_id")), str):
            raise RecordError(f"{begin}: there is no category {one.get('category_id')!r}")
        known = {key: one[key] for key in ("bbox", "segmentation", "iscrowd") if one.get(key)}
        try:
            found = given_object({"label": name, **known})
        except (TypeError, ValueError) as error:
            raise RecordError(f"{begin}: {error}") from None
        objects[one.get("image_id")].append(found)
    items: dict[str, Item] = {}
    for one in _dicts(values, "images"):
        name, sides = one.get("file_name"), (one.get("width"), one.get("height"))
        if not isinstance(name, str) or not name:
            raise RecordError(f"image {one.get('id')!r} has no file_name")
        if name in items:
            raise RecordError(f"two images have the file_name {name!r}")
        size = sides if all(isinstance(side, int) and side > 0 for side in sides) else None
        items[name] = Item(name, name, tuple(objects.pop(one.get("id"), ())), size_px=size)
    if objects:
        raise RecordError(f"an annotation is of image {next(iter(objects))!r}, which is not there")
    if not items:
        raise RecordError("it has no images")
    return list(items.values())


def _dicts(values: dict, name: str) -> list[dict]:
    found = values.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RecordError(f"{name} must be a list, as in COCO's instances_*.json")
    return found
