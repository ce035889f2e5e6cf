"""The page of a store: <store>/report.html, one file."""

from pathlib import Path

from spear_training.data.importing.selection import spread
from spear_training.data.reader import DataFileError
from spear_training.data.report import store_numbers as numbers
from spear_training.data.report import store_plots as plots
from spear_training.data.report.motion_sample import MotionSample, sample_motion
from spear_training.data.report.picture_sheet import picture_sheet
from spear_training.data.store.frames import FrameStore
from spear_training.data.store.motions import EpisodeMotion, episode_motion
from spear_training.data.store.rejects import read_rejects
from spear_training.data.whole_file import write_whole
from spear_training.pages.drawing import svg_address
from spear_training.pages.page import render

PAGE_NAME = "report.html"
TEMPLATE = Path(__file__).parent / "templates" / "store.html"
SHOWN_EPISODES, REACH_EPISODES = 4, 60
QUANTILES = (0.01, 0.5, 0.99)


def write_report(root: str | Path) -> Path:
    """Write the page of a finished store into its folder.

    Numbers of some episodes and few pictures are read, so a large store takes no longer.

    Returns:
        The page's path.

    Raises:
        DataFileError: the folder holds no finished store.
        OSError: the page cannot be written.
    """
    store = FrameStore(root)
    page = store.root / PAGE_NAME
    write_whole(page, render(TEMPLATE, **_values(store)).encode())
    return page


def _values(store: FrameStore) -> dict:
    facts = store.facts
    durations_s = numbers.durations_s(store)
    sentences, further = numbers.sentence_counts(store)
    rejects = read_rejects(store.root)
    troubles: list[str] = []
    sample, motions, reach = None, [], []
    try:
        sample = sample_motion(store)
        everywhere = range(len(store.episodes))
        motions = [episode_motion(store, each) for each in spread(everywhere, SHOWN_EPISODES)]
        reach = [episode_motion(store, each) for each in spread(everywhere, REACH_EPISODES)]
        troubles += sample.oddities(facts.name)
        troubles += _rate_troubles(sample, facts.control_hz)
    except DataFileError as error:
        troubles.append(str(error))
    doubt = (facts.source.get("subset") or {}).get("doubt")
    return {
        "facts": facts,
        "headlines": [line for line in numbers.headlines(store) if line.value != "0"],
        "troubles": troubles,
        "fact_rows": numbers.fact_rows(facts),
        "notes": list(facts.source.get("notes") or ()) + ([doubt] if doubt else []),
        "camera_rows": numbers.camera_rows(facts),
        "lengths": svg_address(lambda figure: plots.draw_lengths(figure, durations_s), 5.4, 3.0),
        "reach": svg_address(lambda figure: plots.draw_reach(figure, reach), 6.4, 3.4),
        "reach_episodes": len(reach),
        "sentences": sentences.most_common(numbers.MOST_SENTENCES),
        "sentence_count": len(sentences),
        "further_sentences": further,
        "sample": sample,
        "motion_rows": _motion_rows(sample) if sample else [],
        "share_rows": _share_rows(sample) if sample else [],
        "motions": [_drawn(store, motion) for motion in motions],
        "sheet": picture_sheet(store),
        "rejected": _groups(rejects, selected=True),
        "not_selected": _groups(rejects, selected=False),
        "most_reasons": numbers.MOST_REASONS,
    }


def _groups(rejects, selected: bool) -> list[numbers.RejectGroup]:
    return numbers.reject_groups([each for each in rejects if each.selected == selected])


def _rate_troubles(sample: MotionSample, control_hz: float) -> list[str]:
    texts = []
    if abs(sample.interval_s * control_hz - 1) > 0.05:
        texts.append(
            f"frames are {sample.interval_s:.4f} s apart (median), but its rate is said to be "
            f"{control_hz:g} a second"
        )
    if sample.longest_gap_s > 5 * sample.interval_s:
        texts.append(f"two frames of an episode are {sample.longest_gap_s:.2f} s apart")
    return texts


def _motion_rows(sample: MotionSample) -> list[tuple[str, list[str]]]:
    motion = sample.motion
    sketches = [(f"position {axis} [m]", s) for axis, s in zip("xyz", motion.position, strict=True)]
    sketches += [
        (f"translation {axis} [m]", s) for axis, s in zip("xyz", motion.translation, strict=True)
    ]
    sketches += [("motion in 1 s [m]", motion.distance), ("turn in 1 s [rad]", motion.turn)]
    marks = [(name, [s.low, *map(s.quantile, QUANTILES), s.high]) for name, s in sketches]
    # Nothing below 0 is shown as -0.000.
    return [(name, [f"{round(value, 3) + 0.0:.3f}" for value in values]) for name, values in marks]


def _share_rows(sample: MotionSample) -> list[tuple[str, str]]:
    motion = sample.motion
    changes = motion.gripper_changes / max(1, motion.episodes)
    return [
        ("moments at which nothing moves", f"{100 * motion.idle_share:.1f} %"),
        ("steps that tell the gripper to be open", f"{100 * motion.open_share:.1f} %"),
        ("times the gripper opens or closes", f"{changes:.2f} an episode"),
        ("median time between frames", f"{sample.interval_s:.4f} s"),
        ("longest time between frames", f"{sample.longest_gap_s:.3f} s"),
    ]


def _drawn(store: FrameStore, motion: EpisodeMotion) -> dict:
    return {
        "episode": motion.episode,
        "sentence": store.episodes.sentences(motion.episode)[0],
        "time": svg_address(lambda figure: plots.draw_motion(figure, motion), 5.4, 4.8),
        "path": svg_address(lambda figure: plots.draw_path(figure, motion), 5.4, 3.4),
    }
