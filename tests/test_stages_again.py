"""Doing a part of a run again: what rests on it is forgotten, what it rests on is kept, and nothing is lost to a wrong request."""

import pytest

from robopref.arrays import InputError
from robopref.stages.pipeline import FOLDERS, _forget, _needs


@pytest.fixture
def run(tmp_path):
    """A finished run, as files."""
    for entry in (*(one for entries in FOLDERS.values() for one in entries), "config.yaml"):
        path = tmp_path / entry if "." in entry else tmp_path / entry / "done.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (tmp_path / "base" / "base.json").write_text("{}")
    (tmp_path / "arms" / "arms.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("stage", FOLDERS)
def test_everything_downstream_of_a_stage_that_is_redone_is_forgotten(run, stage):
    _forget(run, [stage])
    order = list(FOLDERS)
    for other, entries in FOLDERS.items():
        kept = order.index(other) < order.index(stage)
        assert all((run / entry).exists() is kept for entry in entries), other
    assert (run / "config.yaml").exists()


def test_the_earliest_of_several_stages_counts(run):
    _forget(run, ["report", "align"])
    assert (run / "base").exists() and not (run / "arms").exists() and not (run / "evaluation").exists()


def test_a_gap_between_stages_is_refused_before_anything_is_forgotten(run):
    with pytest.raises(InputError, match="without align"):
        _needs(run, ["pretrain", "evaluate"])
    for fine in (["align", "evaluate"], ["report"], ["evaluate"], ["collect"]):
        _needs(run, fine)
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match="wanted evaluate before it"):
        _needs(run, ["report"])
