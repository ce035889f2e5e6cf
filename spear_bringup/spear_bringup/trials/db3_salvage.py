"""The whole messages of a torn SQLite bag (.db3), copied into a new one."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory
from urllib.parse import quote

from spear_bringup.trials.bag_metadata import ZSTD, FileContents, RepairError

# What a writer that died leaves beside its file; SQLite takes it in when the file is opened.
_UNFINISHED = ("-wal", "-journal")
_SIGNATURE = b"SQLite format 3\0"
_HEAD = Struct(">16xH10xI")  # after the signature: bytes of a page, ..., number of pages
_MESSAGES = "SELECT id, topic_id, timestamp, data FROM messages"


def contents_of_whole(path: Path) -> FileContents | None:
    """What a file holds; None: it was never closed, or is damaged."""
    if any(_beside(path, end).exists() for end in _UNFINISHED):
        return None
    page_bytes, pages = _pages(path)
    if path.stat().st_size < page_bytes * pages:
        return None
    try:
        with closing(_open(path)) as there:
            return _contents(path.name, there)
    except sqlite3.Error:
        return None


def salvage(path: Path, target: Path, name: str) -> FileContents:
    """Copy the whole messages of a file, with those that its journal holds.

    Args:
        path: the torn file; neither it nor its journal is changed.
        target: of the copy.
        name: that the copy will have.

    Raises:
        RepairError: it is no bag, or has no whole message.
        OSError: the copy cannot be written.
    """
    with TemporaryDirectory(dir=target.parent, prefix=".bag_repair.") as folder:
        opened = Path(folder) / path.name
        shutil.copyfile(path, opened)
        # SQLite takes a page that is cut short for one that ends in zeros.
        os.truncate(opened, opened.stat().st_size // _pages(path)[0] * _pages(path)[0])
        for end in _UNFINISHED:
            if _beside(path, end).exists():
                shutil.copyfile(_beside(path, end), _beside(opened, end))
        try:
            with closing(sqlite3.connect(opened)) as torn, closing(sqlite3.connect(target)) as new:
                # A file that is cut short can be opened only so; what it lacks is an error then.
                torn.execute("PRAGMA writable_schema = ON")
                with new:
                    _copy_tables(torn, new)
                    new.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", _whole(torn))
                made = _contents(name, new)
        except sqlite3.Error as error:
            if "disk" in str(error) and "malformed" not in str(error):
                raise OSError(f"{target}: {error}") from None
            raise RepairError(f"{path} is no bag, or its beginning is damaged ({error})") from None
    if not made.messages:
        raise RepairError(f"{path} has no whole message; it is left as it is")
    return made


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _pages(path: Path) -> tuple[int, int]:
    """The size of a page and how many there are, as the beginning of the file says."""
    with path.open("rb") as file:
        begin = file.read(_HEAD.size)
    if len(begin) < _HEAD.size or not begin.startswith(_SIGNATURE):
        raise RepairError(f"{path} does not begin like an SQLite file")
    page_bytes, pages = _HEAD.unpack(begin)
    return (65536 if page_bytes == 1 else max(page_bytes, 512)), pages


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)


def _contents(name: str, there: sqlite3.Connection) -> FileContents:
    columns = {row[1] for row in there.execute("PRAGMA table_info(topics)")}
    wanted = ("name", "type", "serialization_format", "offered_qos_profiles")
    wanted = (*wanted, "type_description_hash")
    chosen = ", ".join(column if column in columns else f"'' AS {column}" for column in wanted)
    topics = {
        key: dict(zip(wanted, values, strict=True))
        for key, *values in there.execute(f"SELECT id, {chosen} FROM topics")
    }
    counts: dict[str, int] = {}
    left_out = 0
    times_ns = []
    grouped = "SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages"
    for key, count, start_ns, end_ns in there.execute(f"{grouped} GROUP BY topic_id"):
        if key not in topics:
            left_out += count
            continue
        topic = topics[key]["name"]
        counts[topic] = counts.get(topic, 0) + count
        times_ns += [start_ns, end_ns]
    by_name = {topic["name"]: topic for topic in topics.values()}
    ends_ns = (min(times_ns), max(times_ns)) if times_ns else (0, 0)
    first = there.execute("SELECT data FROM messages LIMIT 1").fetchone()
    packed = first is not None and bytes(first[0]).startswith(ZSTD)
    return FileContents(name, by_name, counts, *ends_ns, packed, left_out)


def _copy_tables(torn: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Copy the definitions of all tables, and what all but the messages hold."""
    found = torn.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY type DESC"
    ).fetchall()
    for _, _, sql in found:
        new.execute(sql)
    for kind, name, _ in found:
        if kind == "table" and name != "messages":
            for row in torn.execute(f'SELECT * FROM "{name}"'):
                marks = ", ".join("?" * len(row))
                new.execute(f'INSERT INTO "{name}" VALUES ({marks})', row)


def _whole(torn: sqlite3.Connection) -> Iterator[tuple]:
    """The messages before the first damaged page, then those behind the last one."""
    last = -1
    try:
        for row in torn.execute(f"{_MESSAGES} ORDER BY id"):
            yield row
            last = row[0]
        return
    except sqlite3.DatabaseError:
        pass
    try:
        for row in torn.execute(f"{_MESSAGES} WHERE id > ? ORDER BY id DESC", (last,)):
            yield row
    except sqlite3.DatabaseError:
        return
