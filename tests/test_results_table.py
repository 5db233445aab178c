"""The table of results: what was not run stays visibly empty, and every cell can be made again."""

import pytest
from robopref.benchmarks import dial_table, rewards_table
from robopref.benchmarks.table import EMPTY, HEAD_SEED, HEAD_TASKS, SEEDS, TASKS, document
from synthetic_run import make_run

from robopref.arrays import InputError
from robopref.data.files import write_json


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


def test_the_page_about_rewards_leaves_empty_what_was_not_run_and_judges_what_was(tmp_path):
    assert rewards_table.document(tmp_path).count(rewards_table.EMPTY) >= len(rewards_table.TASKS) + 6
    held = {"accuracy": 0.9, "ece": 0.02, "ci95": [0.8, 0.95]}
    names = ("gaussian_clean", "gaussian_flipped", "partial_return_flipped")
    change = {
        "accuracy": {"difference": 0.05, "ci95": [0.01, 0.09]},
        "brier": {"difference": -0.1, "ci95": [-0.2, 0.1]},
    }
    metrics = {
        "command": "robopref run experiment=noise task=door-open seed=1 out=runs/a", "cells": {n: {"held_out": held} for n in names},
        "differences": {f"gaussian_flipped - {n}": change for n in ("gaussian_clean", "partial_return_flipped")},
    }  # fmt: skip
    write_json(tmp_path / "noise" / "door-open-seed1" / "metrics.json", metrics)
    text = rewards_table.document(tmp_path)
    assert "5 of 6 cells are empty" in text and "| door-open, 1 | 90.0% | 90.0% | 0.020 |" in text
    assert "higher with an interval above 0 in 1, lower with one below 0 in 0" in text and "below 0 in 0.\n" in text
    assert f"- `{metrics['command']}`" in text


def test_the_page_about_rewards_shows_films_per_seed_and_their_mean(tmp_path):
    kinds = [f"{kind}spearman{arm}" for arm in ("", "_other_arm") for kind in ("", "rlhf_", "untaught_")]
    for seed, value in ((1, 0.5), (2, 0.7)):
        reward = dict.fromkeys(kinds, value) | {f"{k}_ci95": [value - 0.2, value + 0.2] for k in kinds}
        reward |= {"triplets": 20, "demonstrations": 24, "held_out_films": 28, "other_films": 21}
        metrics = {
            "command": f"robopref run experiment=rapl seed={seed} out=runs/{seed}", "reward": reward,
            "diagonality": {"diagonality": {"best_third": 0.8, "worst_third": 0.4}},
        }  # fmt: skip
        write_json(tmp_path / "rapl" / f"seed{seed}" / "metrics.json", metrics)
    text = rewards_table.document(tmp_path)
    assert (
        "| 1 | 20 | 24 | 28 + 21 | 0.50 [0.30, 0.70] |" in text and "Mean over 2 seeds: RAPL 0.60 (target 0.75)" in text
    )
    assert "- `robopref run experiment=rapl seed=2 out=runs/2`" in text


def dial_run(folder, seed, saved):
    """A finished dial of 20 resets: the base touches in every second one, the headline's weight in a share of these."""
    base = [1.0, 0.0] * 10
    kept = [a if k / 20 >= saved else 0.0 for k, a in enumerate(base)]
    cost = {"base": base, "w=0": base, "w=1": kept}
    good = {name: [1] * 20 for name in cost}
    one = {"episodes": 20}
    metrics = {
        "task": "point-mass", "seed": seed, "labels_asked": 30, "labels_marked": 12, "cost": "contact", "headline": "w=1", "zero_is_base": True,
        "promise": {"wanted": 0.8, "may_lose": 0.02}, "policies": dict.fromkeys(cost, one), "weights": {"w=0": 0.0, "w=1": 1.0},
        "command": f"robopref run experiment=safety_dial task=point-mass seed={seed} out=runs/a",
    }  # fmt: skip
    write_json(folder / "safety_dial" / "point-mass" / f"seed{seed}" / "metrics.json", metrics)
    write_json(folder / "safety_dial" / "point-mass" / f"seed{seed}" / "outcomes.json", {"success": good, "cost": cost})


@pytest.mark.parametrize(("saved", "said"), [(0.9, "reached"), (0.5, "**missed**")])
def test_the_dial_s_section_judges_the_headline_over_all_seeds_and_draws_the_frontier(tmp_path, saved, said):
    for seed in (0, 1):
        dial_run(tmp_path, seed, saved)
    text = document(tmp_path)
    assert "## safety_dial" in text and f"points of success lost): {said}" in text and "2 of 3 seeds were run." in text
    assert f"| **w=1** | 100.0% [91.2, 100.0] | +0.0 [+0.0, +0.0] | {0.5 * (1 - saved):.2f}" in text
    assert f"### reach-wall\n\n{EMPTY}" in text and "`w=0` is the base on every reset: yes" in text
    assert [path.name for path in dial_table.plots(tmp_path)] == ["point-mass.png"]
    assert (tmp_path / "safety_dial/point-mass.png").read_bytes()[:4] == b"\x89PNG"


def test_every_head_stands_beside_the_cells_that_are_there(tmp_path):
    assert "every_head" not in document(tmp_path)
    for head in ("tokens", "flow", "gaussian"):
        for task in HEAD_TASKS[: 2 if head == "flow" else 3]:
            make_run(tmp_path / "every_head" / head / task / f"seed{HEAD_SEED}", task=task, seed=HEAD_SEED)
    for task in HEAD_TASKS:
        make_run(tmp_path / "align_metaworld" / task / f"seed{HEAD_SEED}", task=task, seed=HEAD_SEED)
    text = document(tmp_path)
    section = text.partition("## every_head")[2]
    row = next(line for line in section.splitlines() if line.startswith("| flow |"))
    assert row.count(EMPTY) == 2 and "flow lack cells" in section
    make_run(tmp_path / "every_head" / "flow" / HEAD_TASKS[2] / f"seed{HEAD_SEED}", task=HEAD_TASKS[2], seed=HEAD_SEED)
    assert "aligned policies 0.0 points apart (at most 10): kept" in document(tmp_path)
