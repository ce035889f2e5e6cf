"""OUT/run.json: what the records of a folder were made from and how, and that it stays so."""

import hashlib
import logging
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.items import Item
from spear_training.annotation.job.agreement import agree, differences, read_agreed

NAME = "run.json"
_BINDING = ("format", "settings", "items", "num_shards")
_FORMAT = "spear annotations 1"
_LIBRARIES = (
    "spear_training",
    "numpy",
    "pillow",
    "pycocotools",
    "torch",
    "transformers",
    "google-genai",
    "moge",
    "ray",
)
log = logging.getLogger(__name__)


def agree_on_run(
    out: Path,
    settings: list[dict],
    items: Sequence[Item],
    root: Path,
    num_shards: int,
    where: str,
) -> dict:
    """Write run.json, or check that it says the same.

    Args:
        settings: of all stages, in order.
        items: the whole list, not a shard's.
        root: the folder that the items' paths are relative to.
        where: the list's path or folder, for people.

    Raises:
        JobError: the folder holds another run; names the difference.
        OSError: the folder cannot be written.
    """
    values = {
        "format": _FORMAT,
        "settings": settings,
        "items": {"count": len(items), "sha256": hash_items(items)},
        "num_shards": num_shards,
        "list": where,
        # Relative, so that a folder of pictures and of records can move together.
        "images": os.path.relpath(root.resolve(), out.resolve()),
        "versions": versions(),
    }
    mend = "use the same options and pictures again, or choose another --out"
    there = agree(out / NAME, values, _BINDING, mend)
    for words in differences(there.get("versions"), values["versions"]):
        log.warning("%s: version of %s", out / NAME, words)
    return there


def read_run(out: Path) -> dict:
    """Read run.json.

    Raises:
        JobError: there is none, or it is damaged.
    """
    path = out / NAME
    if not path.is_file():
        raise JobError(f"{path} is not there: {out} must be a folder that `annotate run` wrote")
    run = read_agreed(path)
    if missing := {*_BINDING, "images"} - set(run):
        raise JobError(f"{path} is damaged: it has no {', '.join(sorted(missing))}")
    return run


def images_root(out: Path, run: dict) -> Path:
    """The folder that the records' pictures are relative to.

    Raises:
        JobError: it is not there any more.
    """
    root = Path(os.path.normpath(out.resolve() / run["images"]))
    if not root.is_dir():
        raise JobError(
            f"{root}, the folder of the pictures, is not there: put it back, or write its new "
            f'place into "images" of {out / NAME}'
        )
    return root


def hash_items(items: Sequence[Item]) -> str:
    """A hash over all that is known about the pictures, in their order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.to_json().encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed of those the stages use."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
