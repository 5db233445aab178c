"""Comparing runs: tasks stay apart, every task counts the same, and only equal resets are paired."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from synthetic_run import RATES, make_run

from robopref.arrays import InputError
from robopref.compare import compare, find_runs, read_runs, summarise
from robopref.statistics import paired_bootstrap, paired_test


@pytest.fixture(scope="module")
def multirun(tmp_path_factory):
    root = tmp_path_factory.mktemp("multirun")
    for task, shift in (("drawer-open", 0.0), ("door-open", 0.1)):
        for seed in (1, 2):
            rates = {name: rate + shift for name, rate in RATES.items()}
            make_run(root / f"task={task},seed={seed}", task=task, seed=seed, rates=rates, episodes=50)
    return root


def test_a_folder_of_runs_is_compared_and_its_files_are_written(multirun, tmp_path):
    text = compare([multirun], tmp_path / "out")
    assert "drawer-open" in text and "door-open" in text and "aligned − base" in text
    assert (tmp_path / "out" / "compare.md").read_text() == text
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert len(result["runs"]) == 4
    assert result["policies"]["aligned"]["runs"] == 4


def test_the_same_runs_give_the_same_numbers_however_they_are_named(multirun):
    there = find_runs([multirun])
    assert find_runs([*there, multirun]) == there
    assert summarise(read_runs(there)) == summarise(read_runs(there))


def test_one_run_gives_its_own_paired_statistics(multirun):
    run = read_runs(find_runs([multirun]))[0]
    test = next(t for t in summarise([run])["tests"] if (t["a"], t["b"]) == ("aligned", "base"))
    a, b = run.success["aligned"], run.success["base"]
    assert_allclose([test["difference"], *test["ci95"]], paired_bootstrap(a, b), atol=0.03)
    assert test["p_value"] == paired_test(a, b)
    assert test["p_value_runs"] is None


def test_one_run_has_no_interval_of_its_interquartile_mean(multirun):
    runs = read_runs(find_runs([multirun]))
    assert summarise(runs[:1])["policies"]["aligned"]["iqm_ci95"] is None
    low, high = summarise(runs[:2])["policies"]["aligned"]["iqm_ci95"]
    assert low <= high


def test_the_difference_is_the_difference_of_the_means(multirun):
    result = summarise(read_runs(find_runs([multirun])))
    for test in result["tests"]:
        wanted = result["policies"][test["a"]]["mean"] - result["policies"][test["b"]]["mean"]
        assert_allclose(test["difference"], wanted, atol=1e-12)


def test_every_task_counts_the_same_however_many_seeds_it_has(tmp_path):
    paths = [make_run(tmp_path / "a1", task="a", seed=1, episodes=20)]
    paths += [make_run(tmp_path / f"b{seed}", task="b", seed=seed, episodes=20) for seed in (1, 2, 3)]
    result = summarise(read_runs(paths))["policies"]["aligned"]
    assert_allclose(result["mean"], np.mean([task["success_rate"] for task in result["tasks"].values()]))


def test_every_policy_is_tested_against_base_and_aligned_against_every_policy(multirun):
    pairs = {(t["a"], t["b"]) for t in summarise(read_runs(find_runs([multirun])))["tests"]}
    assert pairs == {(n, "base") for n in RATES if n != "base"} | {("aligned", n) for n in RATES if n != "aligned"}


def test_two_experiments_on_one_seed_stand_side_by_side_and_are_paired(tmp_path):
    here = make_run(tmp_path / "x", episodes=30, experiment="plain")
    there = make_run(tmp_path / "y", episodes=30, experiment="fancy", rates={"base": 0.4, "aligned": 0.9})
    result = summarise(read_runs([here, there]))
    assert {"aligned @ plain", "aligned @ fancy"} <= set(result["policies"])
    pairs = {(t["a"], t["b"]) for t in result["tests"]}
    assert ("aligned @ plain", "aligned @ fancy") in pairs
    assert ("aligned @ plain", "base @ fancy") not in pairs


def test_two_runs_in_folders_of_one_name_are_both_kept(tmp_path):
    paths = [make_run(tmp_path / side / "seed=1", episodes=20, rates={"base": 0.4, "aligned": rate})
             for side, rate in (("x", 0.5), ("y", 0.9))]  # fmt: skip
    (run,) = read_runs(paths)
    assert set(run.success) == {f"{name} @ {side}/seed=1" for name in ("base", "aligned") for side in "xy"}
    tests = summarise([run])["tests"]
    assert any({t["a"], t["b"]} == {"aligned @ x/seed=1", "aligned @ y/seed=1"} for t in tests)


def test_a_policy_that_would_overwrite_another_is_refused(tmp_path):
    # The second has no experiment, so its folder's name stands for it, which is the first's experiment.
    here = make_run(tmp_path / "x", episodes=20, experiment="plain")
    there = make_run(tmp_path / "plain", episodes=20, experiment="")
    with pytest.raises(InputError, match="twice"):
        read_runs([here, there])


def test_runs_on_other_resets_are_not_paired(tmp_path):
    here, there = make_run(tmp_path / "x", episodes=30), make_run(tmp_path / "y", episodes=31, experiment="other")
    with pytest.raises(InputError, match="only on the same resets"):
        read_runs([here, there])


def test_a_policy_that_lacks_tasks_is_named(tmp_path):
    paths = [make_run(tmp_path / "a", task="a", episodes=20)]
    paths += [make_run(tmp_path / "b", task="b", episodes=20, rates={"base": 0.4, "aligned": 0.8})]
    assert "since they lack tasks: cloned, filtered, plain_dpo, aligned_no_pairs." in compare(paths, tmp_path / "out")


def test_folders_without_runs_and_runs_without_outcomes_are_refused(tmp_path):
    with pytest.raises(InputError, match="wanted finished runs"):
        compare([tmp_path], tmp_path / "out")
    run = make_run(tmp_path / "run", episodes=10)
    (run / "evaluation" / "outcomes.json").unlink()
    with pytest.raises(InputError, match="Evaluate the run again"):
        compare([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()
