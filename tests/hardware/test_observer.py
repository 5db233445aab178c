"""Which picture belongs to a joint state: not a silent camera's, and not one that a hung driver repeats while the arm moves."""

import numpy as np
import pytest
from robopref.hardware.observer import FROZEN, Observer
from robopref.hardware.topics import Topics


class Bridge:
    """Keeps who listens."""

    def __init__(self):
        self.heard = {}

    def subscribe(self, topic, kind, handler, **words):
        self.heard[topic] = handler


class Scene:
    """An observer whose clock is ours."""

    def __init__(self):
        self.now, self.bridge, self.topics = 10.0, Bridge(), Topics()
        self.observer = Observer(lambda q: q, clock=lambda: self.now)
        self.observer.subscribe(self.bridge, self.topics)

    def show(self, joint, picture, seconds=0.1):
        """The arm is at `joint` and the camera sends a picture; what the observer makes of it."""
        self.now += seconds
        header = {"frame_id": f"rp1 t={round(self.now * 1e6)}"}
        numbers = {"position": [joint] * 7, "velocity": [0.0] * 7, "effort": [0.0] * 7}
        self.bridge.heard[self.topics.joint_states]({"header": header, **numbers})
        if picture is not None:
            self.bridge.heard[self.topics.camera]({"data": picture})
        return self.observer.picture(self.observer.reading())


def test_a_repeated_picture_is_none_once_the_arm_has_moved_and_a_new_one_counts_again():
    scene = Scene()
    seen = [scene.show(0.02 * step, b"same", 0.12) for step in range(8)]
    assert seen[:3] == [b"same"] * 3 and seen[3:] == [None] * 5
    assert scene.show(0.16, b"other") == b"other"


def test_a_scene_in_which_nothing_moves_may_look_the_same():
    scene = Scene()
    assert [scene.show(0.0, b"same") for _ in range(20)] == [b"same"] * 20


def test_a_silent_camera_is_told_by_age():
    scene = Scene()
    assert scene.show(0.0, b"one") == b"one"
    assert scene.show(0.0, None, 0.1) == b"one"
    assert scene.show(0.0, None, 0.1) is None


@pytest.mark.parametrize("joint", range(7))
def test_only_the_last_joint_may_turn_unseen(joint):
    scene, place = Scene(), np.zeros(7)
    scene.show(0.0, b"same")
    scene.now += FROZEN
    place[joint] = 0.2
    assert scene.show(0.0, b"same") == b"same"
    assert scene.observer._frozen(b"same", place) is (joint < 6)
