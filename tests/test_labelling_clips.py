"""Clips: the same bytes twice, both codecs, upright, cut or drawn or replayed; what cannot be made is told."""

import asyncio
import hashlib
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from episodes import episode
from hydra.utils import instantiate
from robopref.benchmarks.labelling.server import acted, dataset
from robopref.envs.point_mass import PointMass

from robopref.arrays import InputError, Trajectory
from robopref.data.files import DiskFullError
from robopref.data.pairs import Window
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.labelling.clips import Clips
from robopref.labelling.encode import CODECS, encode
from robopref.labelling.options import Options, parse
from robopref.labelling.pool import questions, windows_of
from robopref.labelling.render import DEFAULT, ClipJob, environments_of, make


def pictures(frames=12, height=64, width=96):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(base, 3 * f, axis=1) for f in range(frames)]).astype(np.uint8)


def decoded(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("codec", CODECS)
def test_a_clip_is_the_same_twice_and_looks_like_its_pictures(tmp_path, codec):
    for name in ("a", "b"):
        encode(tmp_path / name, pictures(), 20, codec)
    one, other = ((tmp_path / name).read_bytes() for name in ("a", "b"))
    assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest()
    if codec == "h264":
        assert one.index(b"moov") < one.index(b"mdat")
    seen = decoded(tmp_path / "a")
    assert seen.shape == pictures().shape and np.abs(seen.astype(float) - pictures()).mean() < 25


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 64, 64), (3, 63, 65)])
def test_one_frame_and_odd_sizes_work(tmp_path, codec, frames, height, width):
    encode(tmp_path / "clip", np.full((frames, height, width, 3), 90, np.uint8), 25, codec)
    assert decoded(tmp_path / "clip").shape == (frames, height + height % 2, width + width % 2, 3)


def job(root, folder, episode_=0, start=0, end=30, stride=3, source="states", codecs=("h264",)):
    envs = environments_of("pointmass", "point-mass")
    outputs = tuple((DEFAULT, c, str(Path(folder) / f"{c}{CODECS[c].suffix}")) for c in codecs)
    return ClipJob(str(root), episode_, start, end, (DEFAULT,), source, 64, stride, 20, envs, outputs)


def test_states_are_drawn_to_the_last_step_and_a_replay_gives_the_same_bytes(tmp_path):
    stored, replayed = dataset(tmp_path / "a", 4), dataset(tmp_path / "b", 4, states=False)
    for root, folder in ((stored, tmp_path / "x"), (replayed, tmp_path / "y")):
        assert make(job(root, folder)) == 10
    assert (tmp_path / "x/h264.mp4").read_bytes() == (tmp_path / "y/h264.mp4").read_bytes()
    env = PointMass(image_size=64)
    env.set_state(TrajectoryStore(stored).read(0).sim_state[29])
    assert np.abs(decoded(tmp_path / "x/h264.mp4")[-1].astype(float) - env.render()).mean() < 6
    upside_down = env.render()[::-1]
    assert np.abs(decoded(tmp_path / "x/h264.mp4")[-1].astype(float) - upside_down).mean() > 6


def test_an_episode_that_replays_differently_is_told(tmp_path):
    with StoreWriter(tmp_path / "s", fps=20) as writer:
        writer.add(replace(acted(PointMass(horizon=20), 0, 0.5, states=False), seed=9))
    with pytest.raises(InputError, match="another observation"):
        make(job(tmp_path / "s", tmp_path, end=20))


@pytest.mark.parametrize("preset", ["metaworld", "metaworld_pictures"])
def test_what_was_collected_with_any_preset_of_an_environment_is_replayed(tmp_path, preset):
    """`robopref collect` stores no simulator states by default, and not what an episode's environment was set to."""
    made = {one["horizon"]: one for one in environments_of("metaworld", "drawer-open")}
    horizon = {"metaworld": 200, "metaworld_pictures": 40}[preset]
    env = instantiate(made[horizon])
    observation, _ = env.reset(seed=3)
    seen, done = [], []
    for step in range(12):
        seen.append(observation)
        done.append(np.full(4, 0.5 if step < 6 else -0.5, np.float32))
        observation, *_ = env.step(done[-1])
    one = Trajectory(
        np.stack(seen).astype(np.float32), np.stack(done), np.zeros(12, np.float32), np.zeros(12, bool),
        task="drawer-open-v3", seed=3, env="metaworld",
    )  # fmt: skip
    with StoreWriter(tmp_path / "s", fps=20) as writer:
        writer.add(one)
    for _ in range(2):  # the second time the preset is known
        envs = environments_of("metaworld", "drawer-open")
        outputs = ((DEFAULT, "h264", str(tmp_path / "h264.mp4")),)
        assert make(ClipJob(str(tmp_path / "s"), 0, 0, 12, (DEFAULT,), "states", 64, 3, 20, envs, outputs)) == 4


def test_the_preset_called_like_the_environment_comes_first():
    assert [one["horizon"] for one in environments_of("metaworld", "drawer-open")] == [200, 40]
    assert environments_of("pointmass", "point-mass")[0]["task"] == "point-mass"
    assert environments_of("never heard of", "x") == ()


def test_recorded_video_is_cut(tmp_path):
    with StoreWriter(tmp_path / "s", fps=20) as writer:
        for n in range(2):
            writer.add(episode(n, 20 + n, camera=True, state=0))
    store = TrajectoryStore(tmp_path / "s")
    clips = Clips(store, tmp_path / "clips", "secret", fps=20)
    window = Window(1, 5, 15)
    (view,) = clips.describe(window)["views"]
    assert clips.describe(window)["frames"] == 10 and view["camera"] == "corner" and not clips.ready(window)
    done = []
    clips.start(window, done.append)
    clips._running[window].result(120)
    assert clips.ready(window)
    seen, wanted = decoded(clips.file(view["files"][0]["id"])[0]), store.read(1, images=True).images["corner"][5:15]
    assert seen.shape == wanted.shape and np.abs(seen.astype(float) - wanted).mean() < 8
    assert clips.file("0" * 32) is None
    clips.close()


def test_names_depend_on_content_and_settings_and_ids_on_the_project(tmp_path):
    store = TrajectoryStore(dataset(tmp_path / "a", 2))
    same = TrajectoryStore(dataset(tmp_path / "b", 2))
    window = Window(0, 0, 30)

    def names(store, secret="s", **more):
        clips = Clips(store, tmp_path / "c", secret, **more)
        found = [f["id"] for f in clips.describe(window)["views"][0]["files"]]
        return found, [clips.file(i)[0].name for i in found]

    assert (
        names(store) == names(same)
        and names(store)[1] == names(store, "t")[1]
        and names(store)[0] != names(store, "t")[0]
    )
    assert not set(names(store)[1]) & set(names(store, size=128)[1])


def test_what_cannot_be_shown_is_refused_at_once(tmp_path):
    with StoreWriter(tmp_path / "s") as writer:
        writer.add(episode(0))
    with pytest.raises(InputError, match="cannot draw"):
        Clips(TrajectoryStore(tmp_path / "s"), tmp_path, "s")
    store = TrajectoryStore(dataset(tmp_path / "p", 2))
    with pytest.raises(InputError, match="at most 3"):
        Clips(store, tmp_path, "s", cameras=["a", "b", "c", "d"])


def test_a_clip_that_fails_closes_its_questions_and_the_rest_goes_on(tmp_path):
    from robopref.labelling.project import Project

    with StoreWriter(tmp_path / "s", fps=20) as writer:
        for n in range(4):
            one = acted(PointMass(horizon=12, image_size=64), n, 0.3, states=n != 3)
            writer.add(one if n != 3 else replace(one, seed=77))
    project = Project(Options(tmp_path / "s", strategy="random", size=64))

    async def some_time():
        going = asyncio.create_task(project.keep_going())
        for _ in range(1200):
            await asyncio.sleep(0.1)
            counts = project.answers.queue.counts()
            if counts["waiting"] == 0:
                break
        going.cancel()
        return counts

    counts = asyncio.run(some_time())
    assert (counts["open"], counts["closed"]) == (3, 3)
    assert [e["kind"] for e in project.answers.log.events()] == ["broken"] * 3 and project.answers.problems() == []
    project.close()
    again = Project(Options(tmp_path / "s", strategy="random", size=64))  # the reason may be gone
    assert again.answers.queue.counts() | {"leased": 0} == counts | {"open": 3, "closed": 0, "waiting": 3}
    again.close()


def test_the_pool_asks_within_one_task_each_question_once(tmp_path):
    store = TrajectoryStore(dataset(tmp_path / "s", 10))
    every = questions(store.episodes, "pairs", 1000, 0)
    assert len(every) == 45 and len({frozenset(c.windows) for c in every}) == 45
    assert questions(store.episodes, "pairs", 20, 0, target=20)[0].propensity == pytest.approx(20 / 45)
    assert [c.priority for c in every] != sorted(c.priority for c in every)
    assert len(windows_of(store.episodes, 10)) == 25 and all(
        w.end - w.start == 10 for w in windows_of(store.episodes, 10)
    )
    assert {len(c.windows) for c in questions(store.episodes, "ranking", 9, 0, clips=5)} == {5}
    assert len(questions(store.episodes, "flag", 99, 0)) == 10
    with pytest.raises(InputError, match="to compare"):
        questions(store.episodes[:1], "pairs", 9, 0)


def test_words_of_the_command_become_options():
    o = parse(["data", "--port", "0", "--no-browser", "annotators=[a, b]", "speed=0.5", "screen=true"])
    assert (o.port, o.browser, o.annotators, o.speed, o.screen) == (0, False, ("a", "b"), 0.5, True)
    for words, why in (
        (["d", "prot=1"], "Did you mean port"),
        ([], "0 datasets"),
        (["d", "--port"], "without a value"),
    ):
        with pytest.raises(InputError, match=why):
            parse(words)


def test_a_full_disk_does_not_make_clips_broken(tmp_path, monkeypatch):
    store = TrajectoryStore(dataset(tmp_path / "s", 2))
    clips, window = Clips(store, tmp_path / "c", "secret", size=64), Window(0, 0, 30)
    full = Future()
    full.set_exception(DiskFullError("the disk is full"))
    clips._finish(window, full)
    assert clips.failure(window) == "" and clips.failures == []
    clips.start(window, lambda w: None)
    assert clips.busy == 0  # not before a while
    dead = Future()
    dead.set_exception(BrokenProcessPool("killed"))
    for _ in range(2):
        clips._finish(window, dead)
        assert clips.failure(window) == ""
    clips._finish(window, dead)
    assert "BrokenProcessPool" in clips.failure(window)
    clips.close()


@pytest.mark.parametrize(("recorded", "speed", "stride", "fps", "motion"), [
    (80, 1.0, 3, 25, 0.94), (20, 1.0, 1, 20, 1.0), (20, 0.5, 1, 10, 0.5), (5, 1.0, 1, 5, 1.0), (5, 4.0, 1, 20, 4.0), (100, 2.0, 8, 25, 2.0),
])  # fmt: skip
def test_clips_last_as_long_as_what_they_show(tmp_path, recorded, speed, stride, fps, motion):
    with StoreWriter(tmp_path / "s", fps=recorded) as writer:
        writer.add(acted(PointMass(horizon=12, image_size=64), 0, 0.0))
    clips = Clips(TrajectoryStore(tmp_path / "s"), tmp_path / "c", "secret", speed=speed)
    assert (clips.stride, clips.fps) == (stride, fps) and clips.slow_motion == pytest.approx(motion, abs=0.01)
    assert clips.ms_per_step * recorded == pytest.approx(1000 / motion, rel=0.01)
