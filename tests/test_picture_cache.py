"""Decoded pictures: what the cache holds is what the videos hold, it survives a kill, and bad videos are told."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from episodes import episode

from robopref.arrays import InputError
from robopref.data import picture_cache
from robopref.data.files import read_json, write_json
from robopref.data.picture_cache import build, cached, plan
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.data.video import VideoWriter

LENGTHS = (9, 12, 7, 15)


def write(root, cameras=("corner",), lengths=LENGTHS):
    with StoreWriter(root, fps=20) as writer:
        for i, steps in enumerate(lengths):
            one = episode(i, steps, camera=True)
            pictures = {
                c: (one.images["corner"].astype(int) // (k + 1)).astype(np.uint8) for k, c in enumerate(cameras)
            }
            object.__setattr__(one, "images", pictures)
            writer.add(one)
    return TrajectoryStore(root)


def test_the_cache_holds_what_the_videos_hold_for_every_camera(tmp_path):
    store = write(tmp_path / "store", ("corner", "wrist"))
    episodes = cached(store, ["corner", "wrist"])
    for i, one in enumerate(episodes):
        direct = store.read(i, images=True)
        assert sorted(one.images) == ["corner", "wrist"]
        for camera, pictures in direct.images.items():
            assert np.array_equal(one.images[camera], pictures)
        assert np.array_equal(one.action, direct.action)
    assert isinstance(episodes[0].images["corner"].base, np.memmap | np.ndarray)


def test_the_size_is_told_before_anything_is_decoded(tmp_path, monkeypatch):
    store, told = write(tmp_path / "store"), []
    wanted = sum(LENGTHS) * 32 * 48 * 3
    assert (plan(store, ["corner"]).bytes, plan(store, ["corner"]).left) == (wanted, wanted)
    monkeypatch.setattr(picture_cache, "decode", lambda *_: pytest.fail("decoded") if not told else iter(()))
    build(store, ["corner"], told.append)
    assert len(told) == 1 and f"{sum(LENGTHS)} frames" in told[0] and "0.2 MiB" in told[0]


def test_a_finished_cache_is_not_built_again_and_one_of_other_videos_is(tmp_path, monkeypatch):
    store = write(tmp_path / "store")
    before = np.array(cached(store, ["corner"])[0].images["corner"])
    monkeypatch.setattr(picture_cache, "decode", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(cached(TrajectoryStore(store.root), ["corner"])[0].images["corner"], before)
    monkeypatch.undo()
    note = store.root / "cache/corner.json"
    write_json(note, {**read_json(note), "source": "another"})
    (store.root / "cache/corner.u8").write_bytes(bytes(plan(store, ["corner"]).bytes))
    assert np.array_equal(cached(store, ["corner"])[0].images["corner"], before)


def test_a_build_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    store = write(tmp_path / "store")
    wanted = [np.array(t.images["corner"]) for t in cached(write(tmp_path / "whole"), ["corner"])]
    monkeypatch.setattr(picture_cache, "_STEP_BYTES", 10 * 32 * 48 * 3)
    real = picture_cache.decode

    def dies(path, first, count, fps):
        for number, frame in enumerate(real(path, first, count, fps)):
            if number == 25:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(picture_cache, "decode", dies)
    with pytest.raises(KeyboardInterrupt):
        build(store, ["corner"])
    started = []

    def watched(path, first, count, fps):
        started.append(first)
        return real(path, first, count, fps)

    monkeypatch.setattr(picture_cache, "decode", watched)
    got = cached(TrajectoryStore(store.root), ["corner"])
    assert started == [20]
    assert all(np.array_equal(one.images["corner"], pictures) for one, pictures in zip(got, wanted, strict=True))


SLOWLY = """
import sys, time
from robopref.data import picture_cache
from robopref.data.store import TrajectoryStore
real = picture_cache.decode
def slow(*arguments):
    for frame in real(*arguments):
        time.sleep(0.05)
        yield frame
picture_cache.decode, picture_cache._STEP_BYTES = slow, 4 * 32 * 48 * 3
picture_cache.build(TrajectoryStore(sys.argv[1]), ["corner"])
"""


def test_a_killed_process_leaves_a_cache_that_another_finishes(tmp_path):
    store = write(tmp_path / "store")
    child = subprocess.Popen([sys.executable, "-c", SLOWLY, str(store.root)])
    note = store.root / "cache/corner.json"
    begin = time.monotonic()
    while not (note.exists() and read_json(note)["done"] >= 4):
        assert time.monotonic() - begin < 60 and child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert 0 < plan(store, ["corner"]).left < plan(store, ["corner"]).bytes
    got, direct = cached(store, ["corner"]), [store.read(i, images=True) for i in range(len(store))]
    assert all(np.array_equal(a.images["corner"], b.images["corner"]) for a, b in zip(got, direct, strict=True))


def test_a_missing_camera_is_told_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"no pictures by 'top', wanted one of corner"):
        cached(write(tmp_path / "store"), ["top"])
    with StoreWriter(tmp_path / "blind") as writer:
        writer.add(episode(0))
    with pytest.raises(InputError, match=r"wanted a store with pictures[\s\S]*cameras=\[corner\]"):
        cached(TrajectoryStore(tmp_path / "blind"), ["corner"])


def other_video(store, frames, size=(32, 48)):
    path, _ = store.videos(0)["corner"]
    path.unlink()
    with VideoWriter(path, 20, *size) as video:
        video.add(np.zeros((frames, *size, 3), np.uint8))


def test_a_video_that_ends_early_is_told(tmp_path):
    store = write(tmp_path / "store")
    other_video(store, sum(LENGTHS) - 5)
    with pytest.raises(InputError, match=f"got {sum(LENGTHS) - 5} frames from 0, wanted {sum(LENGTHS)}"):
        cached(store, ["corner"])


def test_pictures_of_another_size_are_told(tmp_path):
    store = write(tmp_path / "store")
    other_video(store, sum(LENGTHS), (16, 48))
    with pytest.raises(InputError, match=r"pictures of 16x48, wanted 32x48"):
        cached(store, ["corner"])


def test_too_little_room_is_told_before_decoding(tmp_path, monkeypatch):
    store = write(tmp_path / "store")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(picture_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"0\.0 MiB of room, wanted 0\.2 MiB"):
        build(store, ["corner"])


def test_a_frame_that_is_missing_in_between_is_told(tmp_path):
    import av

    from robopref.data.video import decode

    path = tmp_path / "gap.mp4"
    with VideoWriter(path, 20, 32, 48) as video:
        video.add(np.zeros((6, 32, 48, 3), np.uint8))
    gap = tmp_path / "with_gap.mp4"
    with av.open(str(path)) as old, av.open(str(gap), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.dts is not None):
            if number != 3:
                packet.stream = stream
                new.mux(packet)
    with pytest.raises(InputError, match="got frame 4, wanted frame 3"):
        list(decode(gap, 0, 6, 20))
