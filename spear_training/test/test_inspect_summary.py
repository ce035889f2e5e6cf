"""What the page says of a whole run: counts, reasons, sizes out of the ordinary, and the sample."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_runs import failed, inspect, run_with_pictures, shelf, summary_of
from question_fixture import picture, thing, write_run

from spear_training.annotation.inspection.counts import (
    MOST_REASONS,
    Tally,
    find_outliers,
    reason_group,
)
from spear_training.annotation.inspection.page import PictureSample, shares
from spear_training.annotation.records import Dropped
from spear_training.annotation.run_folder import Shard, lock_file


def tally_of(*annotations):
    """Count records."""
    tally = Tally()
    for annotation in annotations:
        tally.add(annotation)
    return tally


def test_everything_is_counted():
    dropped = (Dropped("spoon", "2 of its kind"), Dropped("fork", "3 of its kind"))
    tally = tally_of(
        shelf("a"),
        replace(shelf("b", "mug"), dropped=dropped, metric=False, seconds={"read": 0.03}),
        picture(name="c"),
        failed("d", "read: pictures/d.jpg is no picture"),
    )
    assert tally.statuses == Counter(ok=2, empty=1, failed=1)
    assert tally.objects == Counter(mug=2, bowl=1)
    assert tally.dropped == Counter({"N of its kind": 2})
    assert tally.reasons == Counter(
        {("empty", "nothing was detected"): 1, ("failed", "read: FILE is no picture"): 1}
    )
    example = tally.examples["failed", "read: FILE is no picture"]
    assert example == ("d", "read: pictures/d.jpg is no picture")
    assert tally.unit == "m or units"
    assert list(tally.seconds["read"]) == pytest.approx([0.01, 0.03])
    assert tally.longest_m["mug"].tolist() == pytest.approx([0.4, 0.4])
    assert [tally.ids[at] for at in tally.picture_numbers["mug"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("reason", "group"),
    [
        ("read: 0012.jpg is no picture", "read: FILE is no picture"),
        ("read: frames/0012.jpg is no picture", "read: FILE is no picture"),
        ("12 points, fewer than 50", "N points, fewer than N"),
        ("1.25 m and 3 m", "N m and N m"),
        ("two\n lines", "two lines"),
        (500 * "x", 159 * "x" + "\u2026"),
    ],
)
def test_reasons_that_differ_in_numbers_and_files_are_one(reason, group):
    assert reason_group(reason, "frames/0012.jpg") == group


def test_endless_reasons_do_not_fill_the_memory():
    words = [f"{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}{chr(97 + n // 676)}" for n in range(700)]
    lost = tuple(Dropped("mug", word) for word in words)
    tally = tally_of(replace(shelf("a"), dropped=lost), *(failed("b", word) for word in words))
    for counts, other in ((tally.dropped, "other reasons"),
                          (tally.reasons, ("failed", "other reasons"))):  # fmt: skip
        assert len(counts) == MOST_REASONS + 1
        assert counts[other] == 700 - MOST_REASONS


def test_sizes_that_a_label_does_not_have_are_found():
    mugs = [
        picture(thing("mug", sides=(0.1, 0.1, 0.1 + 0.001 * n)), name=f"{n}") for n in range(20)
    ]
    giant = picture(thing("mug", sides=(0.1, 0.1, 5.0)), name="giant")
    tiny = picture(thing("mug", sides=(0.02, 0.02, 0.02)), name="tiny")
    large = picture(thing("mug", sides=(0.1, 0.1, 0.4)), name="large")
    tables = [
        picture(thing("table", sides=(2, 1, 1.5 + 0.01 * n)), name=f"t{n}") for n in range(20)
    ]
    found = find_outliers(tally_of(*mugs, *tables, giant, tiny, large))
    assert [(each.id, each.label) for each in found] == [("giant", "mug"), ("tiny", "mug")]
    assert found[0].longest_m == pytest.approx(5.0)
    assert found[0].times == pytest.approx(5.0 / 0.11, rel=0.05)


def test_rare_labels_have_no_usual_size():
    usual = [picture(thing("mug", sides=(0.1, 0.2, 0.3)), name=f"{n}") for n in range(6)]
    giant = picture(thing("mug", sides=(0.1, 0.2, 90.0)), name="giant")
    assert find_outliers(tally_of(*usual, giant)) == []
    assert len(find_outliers(tally_of(*usual, usual[0], giant))) == 1
    assert find_outliers(tally_of(picture(name="nothing"))) == []


@given(
    st.fixed_dictionaries({s: st.integers(0, 100) for s in ("ok", "empty", "failed")}),
    st.integers(1, 120),
)
def test_a_sample_is_as_large_as_it_can_be_and_shows_failures(there, total):
    found = shares(Counter(there), total)
    assert sum(found.values()) == min(total, sum(there.values()))
    assert all(0 <= found[status] <= there[status] for status in there)
    if total >= 6 and there["failed"]:
        assert found["failed"] >= min(there["failed"], 2)
    if there["ok"] >= total:
        assert found["ok"] >= total - 2 * min(max(2, total // 10), total // 3)


def sampled(annotations, count, seed=0, only="all"):
    """Draw a sample; return ids."""
    sample = PictureSample(count, seed, only)
    for annotation in annotations:
        sample.add(annotation)
    return [annotation.id for annotation in sample.drawn()]


def test_a_sample_depends_on_ids_and_seed_alone_and_a_larger_one_contains_it():
    # Light stand-ins: only id and status are looked at.
    annotations = [replace(picture(name=f"{n}"), status="ok") for n in range(200)]
    small, large = sampled(annotations, 10), sampled(annotations, 30)
    assert len(small) == 10 and set(small) < set(large)
    assert small == sorted(small, key=int)
    assert sorted(sampled(annotations[::-1], 10)) == sorted(small)
    assert sampled(annotations, 10, seed=1) != small
    counts = Counter(
        int(name) // 50 for seed in range(40) for name in sampled(annotations, 10, seed)
    )
    assert all(60 < counts[quarter] < 140 for quarter in range(4))
    assert sampled(annotations, 10, only="failed") == []


def test_a_run_in_work_is_shown_as_far_as_it_is(tmp_path, capsys):
    out = run_with_pictures(tmp_path, [shelf(f"s/{n}") for n in range(9)], num_shards=3)
    for index in (1, 2):
        Shard(index, 3).file(out).unlink()
    lock_file(Shard(1, 3).file(out)).touch()
    found = summary_of(out)
    assert [annotation.id for annotation in found.shown] == [f"s/{n}" for n in range(3)]
    assert found.tally.statuses == Counter(ok=3)
    assert found.notes[0].startswith("The run is not finished: of its shards 1 are finished, 1 in")
    assert "the list has 9 pictures" in found.notes[0]
    assert not any("hold no record" in note for note in found.notes)
    code, page = inspect(out)
    assert code == 0 and len(page.sections) == 3 and "3 pictures of 9 in the list" in page.text
    assert "The run is not finished" in capsys.readouterr().out


def test_damaged_lines_are_left_out_and_told(tmp_path):
    out = write_run(tmp_path, [shelf(f"s/{n}") for n in range(4)], num_shards=1)
    path = Shard(0, 1).file(out)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + lines[1][:50] + b"\n" + lines[3])
    (out / "questions.jsonl").write_text('{"id": 3}\nno json\n')
    found = summary_of(out)
    assert [annotation.id for annotation in found.shown] == ["s/0", "s/3"]
    assert "2 lines hold no record and are left out. The first: annotations-00000" in found.notes[0]
    assert any("2 lines of questions.jsonl are damaged" in note for note in found.notes)
