"""Records and folders of any row of the mixture, and the table that a user confirmed."""

import numpy as np
import yaml
from oxe_layouts import LAYOUTS
from oxe_motions import SENTENCE, STEPS, code_units, make_motion, text
from oxe_recipes import RECIPES
from oxe_writing import blank_record, picture, write_folder

from spear_training.data.oxe.table import load_table

EXTERNAL_RGB, WRIST_RGB = (200, 90, 20), (30, 160, 220)
TABLE = load_table()


def record_of(name, number=0):
    """Return the record of one episode of a row, and its motion."""
    recipe, layout = RECIPES[name], LAYOUTS[name]
    motion = make_motion(number)
    record = blank_record(layout, STEPS)
    changes = recipe.write(motion)
    if recipe.language == "observation/instruction":
        changes[recipe.language] = code_units(SENTENCE)
    else:
        changes[recipe.language] = text(SENTENCE)
    for camera, rule in TABLE[name].cameras.items():
        colour = WRIST_RGB if camera.startswith("wrist") else EXTERNAL_RGB
        stored = colour[::-1] if rule.key in recipe.bgr else colour
        height, width = size_of(layout, rule.key)
        changes[rule.key] = [picture(height, width, *stored)] * STEPS
    metadata = {
        key: [value.encode()] if isinstance(value, str) else np.array([value])
        for key, value in recipe.metadata.items()
    }
    changes = {f"steps/{key}": value for key, value in changes.items()} | metadata
    assert changes.keys() <= record.keys(), changes.keys() - record.keys()
    return record | changes, motion


def size_of(layout, key):
    """Return height and width of the pictures of a key."""
    group, camera = key.split("/", 1)
    return layout["steps"][group][camera][1:]


def written(tmp_path, name, records):
    """Return a folder with records of a row's dataset."""
    source = TABLE[name].source
    return write_folder(tmp_path / name, LAYOUTS[name], records, source.name, source.versions[0])


def confirmed_table(tmp_path, name):
    """Return the table with what a user confirmed of one row."""
    path = tmp_path / "my_table.yaml"
    path.write_text(yaml.safe_dump({name: RECIPES[name].confirmed}))
    return load_table(path)
