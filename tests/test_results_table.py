"""The table of results: what was not run stays visibly empty, and every cell can be made again."""

import pytest
from robopref.benchmarks.table import EMPTY, SEEDS, TASKS, document
from synthetic_run import make_run

from robopref.arrays import InputError


def test_without_any_run_every_cell_is_visibly_empty(tmp_path):
    text = document(tmp_path)
    assert text.count(EMPTY) == len(TASKS) * (len(SEEDS) + 1)
    assert f"{len(TASKS) * len(SEEDS)} of {len(TASKS) * len(SEEDS)} cells are empty." in text


def test_a_run_fills_its_cell_and_gives_its_command(tmp_path):
    make_run(tmp_path / "align_metaworld" / "drawer-open" / "seed2", task="drawer-open-v3", seed=2)
    make_run(tmp_path / "align_metaworld" / "hammer" / "seed7", task="hammer", seed=7)
    text = document(tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| drawer-open |"))
    assert "→" in row.split("|")[3] and "60 labels" in row and row.split("|")[2].strip() == EMPTY
    assert "`robopref run experiment=align_metaworld task=drawer-open seed=SEED out=DIR`" in row
    assert "- `robopref run experiment=align_metaworld task=hammer seed=7 out=runs/hammer`" in text
    assert "seed 7" in text and "### Differences in points" in text


def test_the_quickstart_has_its_own_plan_of_five_seeds(tmp_path):
    make_run(tmp_path / "quickstart" / "drawer-open" / "seed4", task="drawer-open", seed=4)
    text = document(tmp_path)
    assert "| task | seed 0 | seed 1 | seed 2 | seed 3 | seed 4 |" in text and "4 of 5 cells are empty." in text


def test_a_run_in_the_wrong_folder_is_refused(tmp_path):
    make_run(tmp_path / "align_metaworld" / "drawer-open" / "seed2", task="door-open", seed=2)
    with pytest.raises(InputError, match="wanted those of its folder"):
        document(tmp_path)
