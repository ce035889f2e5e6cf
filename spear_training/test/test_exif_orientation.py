"""What a list gives lies on the photograph, however its EXIF turns it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from rgbd_list import write_items

from spear_training.annotation.annotate import main
from spear_training.annotation.frame import Turn, read_frame
from spear_training.annotation.records import (
    GivenDepth,
    GivenObject,
    Intrinsics,
    Item,
    decode_mask,
    encode_mask,
)
from spear_training.annotation.run_folder import read_annotations

WIDTH, HEIGHT = 120, 80
CARD_XYXY_PX = (20, 10, 50, 34)
CARD = np.zeros((HEIGHT, WIDTH), bool)
CARD[10:34, 20:50] = True
CAMERA = Intrinsics(100.0, 105.0, 58.0, 41.0)
STAGES = ("--detector", "given", "--segmenter", "given", "--geometry", "depth")


def write_photograph(folder, orientation, suffix="png"):
    """Write a photograph of a card before a wall, and its depth; return the item, stored."""
    name = f"{orientation}.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    colour = np.where(CARD[..., None], (230, 20, 230), (60, 90, 60)).astype(np.uint8)
    Image.fromarray(colour).save(folder / name, exif=exif)
    cv2.imwrite(str(folder / f"{name}.depth.png"), np.where(CARD, 1000, 2000).astype(np.uint16))
    card = GivenObject("card", CARD_XYXY_PX, encode_mask(CARD))
    return Item(name, name, (card,), GivenDepth(f"{name}.depth.png", 1000.0), CAMERA)


def annotate(folder, items, *options):
    """Annotate a list by the command; return its records."""
    write_items(folder / "items.jsonl", items)
    out = folder / "out"
    main(["run", "--items", str(folder / "items.jsonl"), "--out", str(out), *STAGES, *options])
    return list(read_annotations(out))


def check_on_card(record, folder):
    """Check that box, mask and points of a record lie on the card of its picture."""
    assert record.status == "ok", record
    (card,) = record.objects
    shown = Item(record.id, record.image, native_aspect=record.native_aspect, upright=True)
    frame = read_frame(shown, folder)
    seen = (frame.image[..., 0] > 150) & (frame.image[..., 1] < 60)
    mask = decode_mask(card.mask)
    assert (mask & seen).sum() > 0.9 * (mask | seen).sum()
    left, top, right, bottom = card.box_xyxy_px
    rows, columns = np.nonzero(seen)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert (left, top, right, bottom) == pytest.approx(edges, abs=5)
    # Each point is where the camera of the upright picture sees it, and as far as the card is.
    points_m = np.array(card.sample_m)
    columns, rows = record.intrinsics.project(points_m).round().astype(int).T
    assert seen[rows, columns].mean() > 0.9
    assert points_m[:, 2] == pytest.approx(1.0)


def test_boxes_masks_depth_and_cameras_are_turned_with_the_photograph(tmp_path):
    items = [write_photograph(tmp_path, orientation) for orientation in range(1, 9)]
    # Pillow turns some of them itself; before 11.3 it has no AVIF.
    avif = ["avif"] if ".avif" in Image.registered_extensions() else []
    for suffix in ("jpg", "tiff", "webp", *avif):
        items += [write_photograph(tmp_path, orientation, suffix) for orientation in (3, 6)]
    records = annotate(tmp_path, items)
    assert len(records) == 16
    for record in records:
        check_on_card(record, tmp_path)


@pytest.mark.parametrize("said_by", ["the list", "an option"])
def test_a_list_in_upright_coordinates_says_so(tmp_path, said_by):
    items = []
    for orientation in (1, 3, 6, 8):
        item, turn = write_photograph(tmp_path, orientation), Turn.of(orientation)
        size = (HEIGHT, WIDTH) if turn.exchange else (WIDTH, HEIGHT)
        depth = cv2.imread(str(tmp_path / item.depth.path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / item.depth.path), np.ascontiguousarray(turn.map(depth)))
        card = GivenObject("card", turn.box(CARD_XYXY_PX, *size), encode_mask(turn.map(CARD)))
        items.append(
            replace(
                item,
                objects=(card,),
                intrinsics=turn.camera(CAMERA, *size),
                upright=said_by == "the list",
            )
        )
    options = ["--upright"] if said_by == "an option" else []
    for record in annotate(tmp_path, items, *options):
        check_on_card(record, tmp_path)


def test_upright_maps_of_a_list_in_stored_coordinates_are_named(tmp_path):
    item = write_photograph(tmp_path, 6)
    upright = GivenObject("card", None, encode_mask(Turn.of(6).map(CARD)))
    depth = np.full((WIDTH, HEIGHT), 1000, np.uint16)
    cv2.imwrite(str(tmp_path / "upright.png"), depth)
    turned = GivenObject("card", Turn.of(6).box(CARD_XYXY_PX, HEIGHT, WIDTH), encode_mask(CARD))
    mask, depth, size, box = annotate(
        tmp_path,
        [
            replace(item, id="mask", objects=(upright,)),
            replace(item, id="depth", depth=GivenDepth("upright.png", 1000.0)),
            replace(item, id="size", size_px=(HEIGHT, WIDTH)),
            replace(item, id="box", objects=(turned,)),
        ],
    )
    said = "it is 80x120, the picture 120x80 as stored: if the whole list was made upright, add"
    assert said in mask.dropped[0].reason
    assert depth.status == size.status == "failed"
    assert said in depth.reason and said in size.reason
    assert "the box is upright and the mask is as stored" in box.dropped[0].reason


def test_a_picture_that_was_squashed_and_turned_gets_its_shape_back(tmp_path):
    (record,) = annotate(tmp_path, [replace(write_photograph(tmp_path, 6), native_aspect=2.0)])
    assert record.status == "ok" and record.native_aspect == 0.5
    seen = decode_mask(record.objects[0].mask)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    # The stored card is 30x24 of 120x80; its scene was 2 to 1 and is upright now.
    width_to_height = (24 / 80) / (30 / 120 * 2)
    assert len(columns) / len(rows) == pytest.approx(width_to_height, abs=0.03)
    check_on_card(record, tmp_path)  # the record alone says how to see the picture so again
