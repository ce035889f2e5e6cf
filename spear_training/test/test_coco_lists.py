"""Data sets in COCO's form as lists of pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from spear_training.annotation.annotate import main
from spear_training.annotation.coco_lists import read_list
from spear_training.annotation.records import Item, RecordError
from spear_training.annotation.run_folder import read_run

CUP_BBOX, BOWL_BBOX = [12.0, 10.0, 20.0, 24.0], [60.0, 30.0, 30.0, 16.0]


def data_set(**changes):
    """Return a data set of two pictures and three annotations in COCO's form."""
    cup = {"id": 7, "image_id": 3, "category_id": 47, "bbox": CUP_BBOX, "area": 480, "iscrowd": 0}
    bowl = {**cup, "id": 8, "category_id": 51, "bbox": BOWL_BBOX}
    people = {**cup, "id": 9, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    return {
        "info": {"year": 2017},
        "categories": [
            {"id": 1, "name": "person", "supercategory": "person"},
            {"id": 47, "name": "cup"},
            {"id": 51, "name": "bowl"},
        ],
        "images": [
            {"id": 3, "file_name": "a.png", "width": 120, "height": 80},
            {"id": 4, "file_name": "b.png", "width": 120, "height": 80},
        ],
        "annotations": [
            {**cup, "segmentation": [[12, 10, 32, 10, 32, 34, 12, 34]]},
            {**bowl, "segmentation": []},
            {**people, "segmentation": {"size": [80, 120], "counts": [0, 9600]}},
        ],
    } | changes


def written(folder, values, indent=None):
    """Write a data set; return its path."""
    path = folder / "instances.json"
    path.write_text(json.dumps(values, indent=indent))
    return path


@pytest.mark.parametrize("indent", [None, 2])
def test_boxes_polygons_and_crowds_become_given_objects(tmp_path, indent):
    first, second = read_list(written(tmp_path, data_set(), indent))
    assert (first.id, first.image, first.size_px) == ("a.png", "a.png", (120, 80))
    cup, bowl, people = first.objects
    assert (cup.label, cup.box_xyxy_px, cup.crowd) == ("cup", (12, 10, 32, 34), False)
    assert cup.mask == [[12, 10, 32, 10, 32, 34, 12, 34]]
    assert (bowl.label, bowl.box_xyxy_px, bowl.mask) == ("bowl", (60, 30, 90, 46), None)
    assert people.crowd
    assert second.objects == ()  # somebody has looked, and nothing is there
    assert [Item.from_json(item.to_json()) for item in (first, second)] == [first, second]


def test_a_list_of_items_may_end_in_json_too(tmp_path):
    path = tmp_path / "items.json"
    path.write_text('{"id": "a", "image": "a.png"}\n')
    assert read_list(path) == [Item("a", "a.png")]
    path.write_text('{"id": "a", "image": "a.png"}\n{"id": "b", "image": "b.png"}\n')
    assert len(read_list(path)) == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([{"image_id": 3, "category_id": 1, "score": 0.5}], "holds results, which name no pict"),
        (data_set(annotations=None), "annotations must be a list"),
        (data_set(categories=[]), "annotation 7: there is no category 47"),
        (data_set(images=[]), "an annotation is of image 3, which is not there"),
        (data_set(images=[], annotations=[]), "it has no images"),
        (data_set(images=[{"id": 3}]), "image 3 has no file_name"),
        (data_set(images=[{"id": 3, "file_name": "a.png"}] * 2), "two images have the file_name"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, values, said):
    with pytest.raises(RecordError, match=f"instances.json.*{said}"):
        read_list(written(tmp_path, values))


def test_a_box_that_is_none_names_its_annotation(tmp_path):
    values = data_set()
    values["annotations"][1]["bbox"] = [60, 30, -5, 16]
    with pytest.raises(RecordError, match="annotation 8: the box of 'bowl' ends before it begins"):
        read_list(written(tmp_path, values))


def test_the_pictures_may_lie_in_another_folder(tmp_path, capsys):
    (tmp_path / "val2017").mkdir()
    Image.fromarray(np.full((80, 120, 3), 90, np.uint8)).save(tmp_path / "val2017" / "a.png")
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "val2017" / "b.png")
    words = ["--items", str(written(tmp_path, data_set())), "--out", str(tmp_path / "out")]
    words += ["--detector", "given", "--segmenter", "given", "--geometry", "depth"]
    assert main([*words, "--images", str(tmp_path / "val2017")]) == 1
    said = capsys.readouterr().out
    assert "a.png: failed, depth: the item has no depth" in said  # so it was read
    assert "the list has another picture's size: it is 120x80, the picture 60x40" in said
    assert read_run(tmp_path / "out")["images"] == "../val2017"


def test_a_command_that_names_no_pictures_says_what_it_needs(tmp_path, capsys):
    words = ["--out", str(tmp_path), "--detector", "given", "--segmenter", "given"]
    assert main([*words, "--geometry", "depth"]) == 2
    assert "--images FOLDER or --items FILE must say which" in capsys.readouterr().err
    assert main([*words, "--geometry", "depth", "--images", str(tmp_path), "--upright"]) == 2
    assert "--upright is about the objects" in capsys.readouterr().err
