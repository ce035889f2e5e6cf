"""From bags and rows to a report: arrays, numbers, video, plots, page and summary."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import av
import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Pose, Twist
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Float64

from spear_bringup.trials.bag_reader import BagReadError, cameras, frames, read_trial
from spear_bringup.trials.bag_writer import BagTopic, definition_of
from spear_bringup.trials.plots import SpeedLimits
from spear_bringup.trials.recording import Recording, TrialEnd, TrialRequest, read_rows
from spear_bringup.trials.report import TRUTH_ENGINES, ReportError, reads_truth, write_report
from spear_bringup.trials.results import ReportedTrial, TrialsSummary
from spear_msgs.msg import EndEffectorCommand, EndEffectorState, GateStatus
from spear_policy.inference.engine import ENGINES
from spear_policy.nodes.messages import pose_from_array, s_to_duration, s_to_stamp

START_S, DURATION_S = 100.0, 6.0
TYPES = {
    "/arm/command": "spear_msgs/msg/EndEffectorCommand",
    "/arm/ee_state": "spear_msgs/msg/EndEffectorState",
    "/arm/gate_status": "spear_msgs/msg/GateStatus",
    "/arm/external/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/arm/wrist/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/arm/sim_world/real_time_factor": "std_msgs/msg/Float64",
}
TOPICS = {name: BagTopic(name, definition_of(msgtype)) for name, msgtype in TYPES.items()}


def pose(time_s):
    """Return a pose message on a circle of 0.1 m radius, one round in 6 s."""
    angle = 2 * np.pi * (time_s - START_S) / DURATION_S
    position = [0.45 + 0.1 * np.cos(angle), 0.1 * np.sin(angle), 0.3 + 0.05 * np.sin(2 * angle)]
    return pose_from_array([*position, 1.0, 0.0, 0.0, 0.0])


def state_at(time_s):
    """Return an EndEffectorState whose gripper closes in the middle."""
    message = EndEffectorState(measured=pose(time_s), commanded=pose(time_s + 0.05))
    message.gripper_opening = 1.0 if time_s < START_S + 3 else 0.4
    message.header.stamp = s_to_stamp(time_s)
    return message


def command_at(time_s, number):
    """Return the `number`-th EndEffectorCommand; every tenth is refused."""
    refused = number % 10 == 9
    message = EndEffectorCommand(
        seam_translation=1e-3 * number,
        seam_rotation=2e-3 * number,
        observation_age=s_to_duration(0.1 + 0.001 * number),
        gripper_opening=1.0 if time_s < START_S + 2.8 else 0.0,
    )
    message.header.stamp = s_to_stamp(time_s)
    message.gate.verdict = GateStatus.VERDICT_REJECTED if refused else GateStatus.VERDICT_PASS
    message.gate.reason = GateStatus.REASON_JUMP if refused else GateStatus.REASON_NONE
    if not refused:
        message.knots, message.knot_twists = [Pose()], [Twist()]
        message.knot_durations = [s_to_duration(0.2)]
    return message


def picture(camera, time_s):
    """Return a CompressedImage with a dot that goes round; external is wider than wrist."""
    height, width = (240, 320) if camera == "external" else (256, 256)
    image = np.full((height, width, 3), (90, 110, 120) if camera == "wrist" else 150, np.uint8)
    angle = 2 * np.pi * (time_s - START_S) / DURATION_S
    centre = (width // 2 + int(80 * np.cos(angle)), height // 2 + int(80 * np.sin(angle)))
    cv2.circle(image, centre, 14, (40, 40, 220), -1, cv2.LINE_AA)
    message = CompressedImage(format="bgr8; jpeg compressed bgr8")
    message.data.frombytes(cv2.imencode(".jpg", image)[1].tobytes())
    return message


def ignore(line):
    """Take a line of progress."""


def record(directory, trial_id, instruction="put the red cube on the plate", images=True, **end):
    """Record a synthetic trial of 6 s and return its row."""
    request = TrialRequest(instruction, seed=7, operator="test", trial_id=trial_id)
    recording = Recording(directory, request, START_S)
    messages = []
    for time_s in np.arange(0, DURATION_S, 0.02) + START_S:
        messages.append((time_s, "/arm/ee_state", state_at(time_s)))
    for number, time_s in enumerate(np.arange(0.5, DURATION_S, 0.2) + START_S):
        messages.append((time_s, "/arm/command", command_at(time_s, number)))
    for camera in ("external", "wrist") if images else ():
        topic = f"/arm/{camera}/image_raw/compressed"
        for time_s in np.arange(0, DURATION_S, 1 / 15) + START_S:
            messages.append((time_s, topic, picture(camera, time_s)))
    for second in range(6):
        status = GateStatus(counts=[100 + 5 * second, 3, second // 3, 7 + 2 * (second // 3), 0])
        status.header.stamp = s_to_stamp(START_S + second)
        messages.append((START_S + second, "/arm/gate_status", status))
        factor = Float64(data=0.9 + 0.01 * second)
        messages.append((START_S + second, "/arm/sim_world/real_time_factor", factor))
    for time_s, topic, message in sorted(messages, key=lambda entry: entry[0]):
        recording.writer.write(TOPICS[topic], round(time_s * 1e9), serialize_message(message))
    end = {"outcome": "SUCCESS", "engine": "scripted", "checkpoint_id": "expert-1", **end}
    return recording.end(TrialEnd(**end), START_S + DURATION_S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with two recorded trials and their report."""
    directory = tmp_path_factory.mktemp("demo")
    record(directory, "first")
    record(
        directory, "second", "lift <b>the</b> bowl & wait", outcome="FAILURE", notes="dropped it"
    )
    write_report(directory, limits=SpeedLimits(0.3, 1.2), progress=ignore)
    return directory


@pytest.fixture
def one_core(monkeypatch):
    """Make reports in this process: processes that share the work are tried by `folder`."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)


def test_a_bag_comes_back_as_the_arrays_that_went_in(folder):
    trial = read_trial(folder / "bags/first")
    assert trial.start_s == pytest.approx(START_S)
    assert trial.custom_data["instruction"] == "put the red cube on the plate"
    assert trial.custom_data["seed"] == "7" and trial.custom_data["outcome"] == "SUCCESS"
    assert len(trial.states.stamps_s) == 300 and trial.states.measured.shape == (300, 7)
    assert trial.states.measured[0] == pytest.approx([0.55, 0, 0.3, 1, 0, 0, 0])
    assert len(trial.commands.stamps_s) == 28 and trial.commands.sent.sum() == 26
    assert trial.commands.stamps_s[1] == pytest.approx(START_S + 0.7)
    assert trial.commands.seams_m[5] == pytest.approx(5e-3)
    assert trial.commands.observation_ages_s[5] == pytest.approx(0.105)
    assert trial.gate.counts[-1].tolist() == [125, 3, 1, 9, 0]
    assert trial.counts["/arm/wrist/image_raw/compressed"] == 90


def test_frames_come_back_in_order_and_in_their_size(folder):
    assert cameras(folder / "bags/first") == ["external", "wrist"]
    stamps, sizes = [], set()
    for stamp_s, image in frames(folder / "bags/first", "external"):
        stamps.append(stamp_s)
        sizes.add(image.shape)
    assert sizes == {(240, 320, 3)} and len(stamps) == 90 and np.all(np.diff(stamps) > 0)


def test_the_summary_has_every_number_of_every_trial(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["engine"] == "scripted" and summary["successes"] == 1
    first, second = summary["trials"]
    sent = [n for n in range(28) if n % 10 != 9]
    assert first["seed"] == 7 and first["success"] and first["duration_s"] == 6.0
    assert first["instruction"] == "put the red cube on the plate"
    assert first["seam_mm"]["max"] == pytest.approx(27.0)
    assert first["seam_mm"]["p99"] == pytest.approx(np.percentile(sent, 99))
    assert first["seam_mrad"]["p50"] == pytest.approx(2 * np.percentile(sent, 50))
    assert first["camera_to_command_age_p99_s"] == pytest.approx(
        0.1 + np.percentile(sent, 99) * 1e-3
    )
    assert first["command_period_p99_s"] == pytest.approx(0.4)  # round the refused ones
    assert first["real_time_factor"] == pytest.approx(0.925)
    assert first["verdicts"] == {"PASS": 25, "CLAMPED": 0, "HELD": 1, "REJECTED": 2, "STOPPED": 0}
    assert first["reasons"] == {"REJECTED": {"JUMP": 2}}
    assert first["bag"] == "bags/first" and first["video"] == "media/first.mp4"
    assert not second["success"] and second["outcome"] == "FAILURE"


def test_the_video_shows_both_cameras_in_a_form_that_every_browser_plays(folder):
    with av.open(str(folder / "media/first.mp4")) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (480 + 360, 360 + 36)
        pictures = [frame.to_ndarray(format="bgr24") for frame in file.decode(stream)]
    assert len(pictures) == pytest.approx(DURATION_S * 15, abs=2)
    middle = pictures[len(pictures) // 2].astype(int)  # the dot is at the left by then
    assert middle[180, 120, 2] - middle[180, 120, 1] > 100  # red, in the external view
    assert middle[180, 67 + 480, 2] - middle[180, 67 + 480, 1] > 100  # red, in the wrist view
    data = (folder / "media/first.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # starts to play before it is read whole


def test_the_page_says_what_its_numbers_are_of(folder):
    page = " ".join((folder / "report.html").read_text().split())
    assert "Engine scripted reads the true poses of the objects" in page
    assert "95 % interval of the rate: 1% to 99%" in page
    assert "position seam p99" in page and "rotation seam p99" in page
    assert "external 320x240 px, wrist 256x256 px" in page
    low, high = json.loads((folder / "summary.json").read_text())["success_rate_95"]
    assert (low, high) == pytest.approx((0.0126, 0.9874), abs=1e-4)  # Clopper and Pearson, 1 of 2
    (row, _), _ = read_rows(folder / "scores.jsonl")
    five = tuple(ReportedTrial(row) for _ in range(5))
    assert TrialsSummary("replay", five).success_rate_95 == pytest.approx((0.478, 1.0), abs=1e-3)
    learned = ReportedTrial(replace(row, engine="spear"))
    assert reads_truth(TrialsSummary("spear", (learned,))) == []
    assert {name for name, entry in ENGINES.items() if entry.simulation_only} == TRUTH_ENGINES


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for key, value in attributes if key in ("src", "href", "poster")]


def test_the_page_opens_from_the_disk_without_a_network(folder):
    page = (folder / "report.html").read_text()
    links = _Links()
    links.feed(page)
    files = [link for link in links.found if not link.startswith("#")]
    assert len(files) >= 2 * (2 + 4 + 1)
    assert all((folder / link).exists() for link in files), files
    outside = re.findall(r"(?:https?:)?//[\w.]+", page.replace("<!doctype html>", ""))
    assert not outside
    assert "lift &lt;b&gt;the&lt;/b&gt; bowl &amp; wait" in page and "<b>the</b>" not in page
    assert "dropped it" in page and "1 of 2" in page
    assert page.count("<tr><td>rejected</td><td>2</td><td>2 jump</td></tr>") == 2


def test_the_report_can_be_made_again_of_chosen_trials_with_the_same_limits(tmp_path, one_core):
    for name in ("first", "second"):
        record(tmp_path, name, images=False)
    limits = SpeedLimits(0.3, 1.2)
    summary = write_report(tmp_path, trial_ids=["second", "first"], limits=limits, progress=ignore)
    lines = summary.table().splitlines()
    assert (
        len(lines) == 4
        and lines[2].startswith("second")
        and "25 pass, 1 held, 2 rejected" in lines[3]
    )

    command = [sys.executable, "-m", "spear_bringup.trials.report", str(tmp_path)]
    done = subprocess.run([*command, "--trial", "first"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "report: trial 1 of 1, first" in done.stdout and "report.html" in done.stdout
    made = json.loads((tmp_path / "summary.json").read_text())
    assert [trial["trial_id"] for trial in made["trials"]] == ["first"]
    assert made["limits"] == {"linear_m_s": 0.3, "angular_rad_s": 1.2}


def test_a_trial_without_images_or_commands_still_has_its_place(tmp_path, one_core):
    record(tmp_path, "blind", images=False)
    empty = Recording(tmp_path, TrialRequest("nothing happens", trial_id="empty"), START_S)
    empty.end(TrialEnd("ABORTED", expected=("/command",)), START_S + 1.0)
    summary = write_report(tmp_path, progress=ignore)
    blind, empty = summary.as_json()["trials"]
    assert blind["video"] is None and blind["seam_mm"]["max"] == pytest.approx(27.0)
    assert empty["seam_mm"] is None and empty["command_period_p99_s"] is None
    assert empty["problems"] == ["no message came on /command"]
    page = (tmp_path / "report.html").read_text()
    assert "The bag has no images." in page and "no message came on /command" in page


def test_an_unreadable_bag_is_named_with_the_fix_and_stops_no_report(tmp_path, one_core):
    record(tmp_path, "good", images=False)
    record(tmp_path, "torn", images=False)
    (tmp_path / "bags/torn/metadata.yaml").unlink()
    with pytest.raises(BagReadError, match="ros2 run spear_bringup bag_repair"):
        read_trial(tmp_path / "bags/torn")
    summary = write_report(tmp_path, progress=ignore)
    assert summary.trials[0].metrics is not None and summary.trials[1].metrics is None
    assert "repair it with" in (tmp_path / "report.html").read_text()


def test_a_folder_without_trials_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(ReportError, match="no trial is on"):
        write_report(tmp_path)
    record(tmp_path, "one", images=False)
    with pytest.raises(ReportError, match="has no row for two"):
        write_report(tmp_path, trial_ids=["one", "two"])
