"""The text and the hash of a message type, from the share folders of the installed packages.

A bag carries both, so that it can be read where the types are not installed.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

SEPARATOR = "=" * 80
_PRIMITIVES = frozenset(
    "bool byte char float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 "
    "string wstring".split()
)
_FIELD_TYPE = re.compile(r"^\s*([A-Za-z][\w/]*)")


class UnknownType(Exception):
    """A message type is not installed; the text says which one and the mend."""


@dataclass(frozen=True)
class MessageDefinition:
    """One type as a bag stores it: `pkg/msg/Type`, definition text with all it nests, RIHS hash."""

    msgtype: str
    text: str
    type_hash: str


@cache
def definition_of(msgtype: str) -> MessageDefinition:
    """The definition of `pkg/msg/Type`.

    Raises:
        UnknownType: the package, its .msg file or its hash is not installed.
    """
    package, _, name = msgtype.split("/")
    parts = [_source(package, name)]
    seen = {(package, name)}
    waiting = _nested(package, parts[0])
    while waiting:
        nested = waiting.pop(0)
        if nested in seen:
            continue
        seen.add(nested)
        text = _source(*nested)
        parts.append(f"{SEPARATOR}\nMSG: {nested[0]}/{nested[1]}\n{text}")
        waiting += _nested(nested[0], text)
    return MessageDefinition(msgtype, "\n".join(parts), _type_hash(package, name, msgtype))


def _share(package: str) -> Path:
    try:
        return Path(get_package_share_directory(package)) / "msg"
    except PackageNotFoundError:
        raise UnknownType(
            f"message package {package} is not installed here; install it to record its topics"
        ) from None


def _source(package: str, name: str) -> str:
    path = _share(package) / f"{name}.msg"
    if not path.is_file():
        raise UnknownType(f"{package}/msg/{name} has no definition file {path}")
    return path.read_text()


def _type_hash(package: str, name: str, msgtype: str) -> str:
    path = _share(package) / f"{name}.json"
    if not path.is_file():
        raise UnknownType(f"{msgtype} has no type hash file {path}; build its package with rosidl")
    hashes = json.loads(path.read_text())["type_hashes"]
    return next(entry["hash_string"] for entry in hashes if entry["type_name"] == msgtype)


def _nested(package: str, text: str) -> list[tuple[str, str]]:
    """(package, name) of every field of `text` that is a message itself, in order."""
    found = []
    for line in text.splitlines():
        match = _FIELD_TYPE.match(line.split("#", 1)[0])
        if match is None or match[1] in _PRIMITIVES:
            continue
        owner, _, name = match[1].rpartition("/")
        found.append((owner.split("/")[0] or package, name))
    return found
