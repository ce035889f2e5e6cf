"""The import command: whole files, one bad episode alone, a summary, and a rerun that goes on."""

import fcntl
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from spear_policy.inference.episode import load_episode
from spear_training.data.import_episodes import main
from spear_training.data.import_run import ImportSummary, write_episode_files
from spear_training.data.oxe.reader import BridgeReader


@pytest.fixture
def command(tmp_path):
    """Return a function that runs the command on a folder and returns its exit code."""

    def run(folder, *more):
        arguments = ["--format", "bridge_rlds", "--input", str(folder)]
        return main([*arguments, "--output", str(tmp_path / "out"), *more])

    return run


def files(tmp_path):
    """Return the names in the output folder."""
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_real_episodes_become_files_that_load_as_they_were(
    bridge_rlds_dir, command, tmp_path, capsys
):
    assert command(bridge_rlds_dir, "--episodes", "0,3,7-8") == 0
    names = [f"bridge_dataset-train-{index:06d}.npz" for index in (0, 3, 7, 8)]
    assert files(tmp_path) == names
    output = capsys.readouterr().out
    assert "[2/4]" in output
    assert "4 episodes written, 0 rejected" in output
    episode = load_episode(tmp_path / "out" / names[1])
    original = BridgeReader(bridge_rlds_dir).read(3)
    assert episode.instruction == "turn lever vertical to front"
    assert np.array_equal(episode.poses, original.poses)
    assert np.array_equal(episode.images["external"], original.images["external"])


def test_one_bad_episode_is_named_and_the_others_are_written(
    write_rlds, make_record, command, tmp_path, capsys
):
    silent = make_record(1, **{"steps/language_instruction": [b""] * 4})
    folder = write_rlds([[make_record(0), silent, make_record(2), make_record(3)]])
    shard = folder / "toy-train.tfrecord-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert command(folder) == 1
    assert files(tmp_path) == ["toy-train-000000.npz", "toy-train-000002.npz"]
    output = capsys.readouterr()
    assert "2 episodes written, 2 rejected" in output.out
    assert "rejected episode 1: " in output.err
    assert "instruction is empty" in output.err
    assert "rejected episode 3: " in output.err
    assert "cut short" in output.err


def test_a_damaged_picture_is_named_and_the_others_are_written(
    write_rlds, make_record, make_picture, command, tmp_path, capsys
):
    pictures = [make_picture(200, 60, 20)] * 3 + [make_picture(1, 2, 3)[:40]]
    bad = make_record(0, **{"steps/observation/image_0": pictures})
    folder = write_rlds([[bad, make_record(1)]])
    assert command(folder) == 1
    assert files(tmp_path) == ["toy-train-000001.npz"]
    assert "picture 3" in capsys.readouterr().err


def test_a_second_run_keeps_what_is_there_unless_told_to_overwrite(
    write_rlds, make_record, command, tmp_path, capsys
):
    folder = write_rlds([[make_record(0), make_record(1)]])
    assert command(folder, "--episodes", "1") == 0
    old = tmp_path / "out" / "toy-train-000001.npz"
    old.write_text("changed by hand")
    assert command(folder) == 0
    assert old.read_text() == "changed by hand"
    assert "1 episodes written, 1 were there already" in capsys.readouterr().out
    assert command(folder, "--overwrite") == 0
    assert load_episode(old).poses[0, 1] == 1


def test_an_unusable_input_is_one_sentence_and_exit_code_2(command, tmp_path, capsys):
    assert command(tmp_path / "nowhere") == 2
    error = capsys.readouterr().err
    assert error.startswith("import_episodes: ")
    assert error.count("\n") == 1
    assert "nowhere" in error


def test_a_full_disk_stops_with_a_sentence_and_leaves_whole_files(
    write_rlds, make_record, command, tmp_path, capsys
):
    folder = write_rlds([[make_record(0), make_record(1)]])
    assert command(folder, "--episodes", "0") == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        assert command(folder) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in capsys.readouterr().err
    assert files(tmp_path) == ["toy-train-000000.npz"]


def test_ctrl_c_ends_it_with_a_summary_and_whole_files(write_rlds, make_record, tmp_path):
    folder = write_rlds([[make_record(number) for number in range(200)]])
    command = [sys.executable, "-u", "-m", "spear_training.data.import_episodes"]
    arguments = ["--format", "bridge_rlds", "--input", folder, "--output", tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        # However late we are, it is not through: nobody reads what it says, and the pipe is small.
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        assert process.stdout.readline().startswith("[1/200]")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted; " in errors
    assert "Traceback" not in errors
    written = files(tmp_path)
    assert 1 <= len(written) < 200
    for name in written:
        assert name.startswith("toy-train-")
        load_episode(tmp_path / "out" / name)


def test_a_reader_is_anything_that_gives_episodes_by_number(bridge_rlds_dir, tmp_path):
    episode = BridgeReader(bridge_rlds_dir).read(0)

    class Two:
        name = "two"

        def __len__(self):
            return 2

        def read(self, index):
            return episode

    summary, lines = ImportSummary(), []
    write_episode_files(Two(), tmp_path / "out", range(2), summary, print_line=lines.append)
    assert files(tmp_path) == ["two-000000.npz", "two-000001.npz"]
    assert len(lines) == 2
    assert str(summary) == "2 episodes written, 0 rejected"


def test_help_has_an_example_and_needs_no_library():
    """No library is imported for it, so it is there in a fraction of a second."""
    lines = (
        "import sys",
        "from spear_training.data.import_episodes import main",
        "try: main(['--help'])",
        "finally: print(sorted({'numpy', 'torch', 'cv2', 'pyarrow'} & sys.modules.keys()))",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--episodes 0,3,7" in done.stdout
    assert done.stdout.endswith("\n[]\n")
