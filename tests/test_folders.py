"""Stages in a run folder: in their order, only those that are wanted, and one process at a time."""

import pytest

from robopref.arrays import InputError
from robopref.data.files import locked
from robopref.stages.folders import LATER, in_order

FOLDERS = {"collect": ("episodes",), "learn": ("rewards",)}


def test_wanted_stages_run_in_order_and_a_folder_at_work_is_refused(tmp_path, capsys):
    ran = []
    steps = {name: lambda name=name: ran.append(name) for name in FOLDERS}
    with locked(tmp_path), pytest.raises(InputError, match="another process"):
        in_order({**LATER, "stages": ["collect"]}, tmp_path, FOLDERS, steps)
    assert ran == [] and not (tmp_path / "config.yaml").exists()
    in_order({**LATER, "stages": ["learn", "collect"]}, tmp_path, FOLDERS, steps)
    assert ran == ["collect", "learn"] and capsys.readouterr().out.count("done in") == 2
    in_order({**LATER, "stages": ["learn"]}, tmp_path, FOLDERS, steps)
    assert ran == ["collect", "learn", "learn"]
    with pytest.raises(InputError, match="wanted some of collect, learn"):
        in_order({**LATER, "stages": ["lern"]}, tmp_path, FOLDERS, steps)
