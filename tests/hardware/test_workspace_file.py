"""A workspace from a file: what it says is what is kept, and what it does not say is asked for."""

import numpy as np
import pytest
from robopref.hardware.ros_node import configured
from robopref.hardware.testing.bench import HOME
from robopref.hardware.workspace import Workspace
from robopref.hardware.workspace_file import EXAMPLE, read_workspace

from robopref.arrays import InputError


def written(tmp_path, text):
    path = tmp_path / "workspace.yaml"
    path.write_text(text)
    return path


def test_the_example_is_kept_with_its_margin(tmp_path):
    read = read_workspace(written(tmp_path, EXAMPLE))
    wanted = Workspace((-0.38, -0.58, 0.02), (0.78, 0.58, 0.98), ((0, 0, 1, 0.04), (0, 1, 0, -0.48)))
    rng = np.random.default_rng(0)
    q = HOME + rng.uniform(-1, 1, (200, 7))
    np.testing.assert_allclose(read.margins(q), wanted.margins(q), atol=1e-12)
    assert read.violations(HOME) == 0 and (read.violations(q) != 0).any()
    assert "2 half-spaces" in read.told()


def test_a_margin_is_one_of_metres_however_long_the_normal_is(tmp_path):
    long = "box: {low: [-1, -1, -1], high: [1, 1, 2]}\nhalf_spaces: [{normal: [0, 0, 10], offset: 0.2}]\nmargin: 0.05"
    assert read_workspace(written(tmp_path, long)).planes.tolist() == [[0.0, 0.0, 1.0, pytest.approx(0.07)]]


BOX = "box: {low: [-1, -1, -1], high: [1, 1, 1]}\n"
BAD = {
    "nothing": ("", "got None"),
    "a list": ("[1]", "wanted box"),
    "no yaml": ("box: [", "no YAML"),
    "an object": ("box: !!python/object/apply:os.system [ls]", "no YAML"),
    "no half-spaces": (BOX, "no half_spaces"),
    "no box": ("half_spaces: []", "no box"),
    "a slip": (BOX + "half_spaces: []\nmargins: 0.1", "unknown 'margins'"),
    "twice": (BOX + "half_spaces: []\nhalf_spaces: [{normal: [0, 0, 1], offset: 0}]", "said twice"),
    "text": (BOX + "half_spaces: []\nmargin: wide", "margin: got 'wide'"),
    "a switch": (BOX + "half_spaces: []\nmargin: yes", "got True"),
    "negative": (BOX + "half_spaces: []\nmargin: -0.1", "0 to 0.5"),
    "nan": ("box: {low: [-1, -1, .nan], high: [1, 1, 1]}\nhalf_spaces: []", r"low\[2\]: got nan"),
    "infinite": ("box: {low: [-1, -1, -.inf], high: [1, 1, 1]}\nhalf_spaces: []", "got -inf"),
    "upside down": ("box: {low: [-1, -1, 1], high: [1, 1, 0]}\nhalf_spaces: []", "got z from 1 to 0"),
    "millimetres": ("box: {low: [-900, -900, 0], high: [900, 900, 900]}\nhalf_spaces: []", "number of metres"),
    "flat": (BOX + "half_spaces: [{normal: [0, 0, 0], offset: 0}]", "not zero"),
    "short": (BOX + "half_spaces: [{normal: [0, 1], offset: 0}]", r"half_spaces\[0\]: normal"),
    "a bare plane": (BOX + "half_spaces: [[0, 0, 1, 0]]", "wanted normal, offset"),
    "one plane": (BOX + "half_spaces: {normal: [0, 0, 1], offset: 0}", "wanted a list"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_wrong_is_refused_with_a_sentence(tmp_path, name):
    text, said = BAD[name]
    with pytest.raises(InputError, match=said):
        read_workspace(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_workspace(tmp_path / "nowhere.yaml")


def test_the_arm_node_keeps_what_the_file_says(tmp_path, capsys):
    path = written(tmp_path, EXAMPLE)
    given, guard = configured(["--address", "here", "--workspace", str(path), "--deadman"])
    assert guard.settings.deadman and given.address == "here"
    np.testing.assert_array_equal(guard.workspace.planes, read_workspace(path).planes)
    assert guard.workspace.low == read_workspace(path).low
    assert configured(["--address", "here"])[1].workspace.low == Workspace().low
    with pytest.raises(SystemExit):
        configured(["--address", "here", "--workspace", str(written(tmp_path, "box: 3\nhalf_spaces: []"))])
    assert "box: got 3" in capsys.readouterr().err
