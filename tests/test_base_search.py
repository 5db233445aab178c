"""The rule that finds a base that half works: the same for all tasks, and it says so where no level does."""

import numpy as np
import pytest

from robopref.stages import pretrain

CONFIG = {"base": {"band": [0.36, 0.54], "rounds": 4}}


def searched(monkeypatch, folder, success):
    """What `find_base` finds where a level's policy succeeds as often as `success(level)` says."""
    tried = []

    def measure(config, store, level, kept):
        tried.append(level)
        return {"level": level, "success_rate": float(success(level)), "episodes": 80}

    monkeypatch.setattr(pretrain, "_try_level", measure)
    monkeypatch.setattr(pretrain, "spread", lambda call, calls, workers: [call(*one) for one in calls])
    return pretrain.find_base(CONFIG, folder / "store", folder, 1), tried


@pytest.mark.parametrize("fall", [0.2, 0.5, 1.0, 2.0, 5.0])
def test_where_success_falls_with_the_level_one_in_the_band_is_found(monkeypatch, tmp_path, fall):
    found, tried = searched(monkeypatch, tmp_path, lambda level: (1 - level) ** fall)
    assert 0.36 <= (1 - found["level"]) ** fall <= 0.54
    assert found["policy"] == str(tmp_path / f"level-{found['level']}" / "policy")
    assert len(tried) == len(set(tried)) <= 8, "two levels a round, none twice"


def test_of_two_levels_in_the_band_the_one_closest_to_its_middle_is_taken(monkeypatch, tmp_path):
    found, tried = searched(monkeypatch, tmp_path, lambda level: 0.53 if level < 0.5 else 0.44)
    assert tried == [pytest.approx(1 / 3, abs=1e-4), pytest.approx(2 / 3, abs=1e-4)], "the search ends with them"
    assert found["level"] == pytest.approx(2 / 3, abs=1e-4) and all(one["in_band"] for one in found["search"])


def test_where_no_level_half_works_the_closest_one_is_taken_and_said_to_miss(monkeypatch, tmp_path):
    found, tried = searched(monkeypatch, tmp_path, lambda level: 0.9 if level < 0.77 else 0.2)
    assert len(tried) == 8 and not any(one["in_band"] for one in found["search"])
    closest = min(abs(one["success_rate"] - 0.45) for one in found["search"])
    rate = {one["level"]: one["success_rate"] for one in found["search"]}[found["level"]]
    assert abs(rate - 0.45) == closest


def test_success_that_does_not_fall_at_every_level_does_not_stop_the_search(monkeypatch, tmp_path):
    noise = np.random.default_rng(3)
    found, tried = searched(monkeypatch, tmp_path, lambda level: np.clip(1 - level + noise.normal(0, 0.3), 0, 1))
    assert found["level"] in tried and all(0 <= level <= 1 for level in tried) and len(tried) == len(set(tried))
