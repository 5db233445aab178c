"""Choosing: averages are means, the learned reward decides, and it decides the same way every time."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.networks.averaging import averaged
from robopref.policies.diffusion import Diffusion
from robopref.policies.realigned import Realigned
from robopref.run import compose
from robopref.stages import choosing
from robopref.types import Dims, Observation


def policy(seed, width=16, observation=3):
    torch.manual_seed(seed)
    return Diffusion(Dims(observation, 2), width=width, depth=1, diffusion_steps=10, sample_steps=2).eval()


def test_an_average_is_the_mean_of_every_weight_and_of_one_model_itself():
    models = [policy(seed) for seed in range(3)]
    states = [model.state_dict() for model in models]
    for name, value in averaged(models).state_dict().items():
        assert_close(value, sum(state[name] for state in states) / 3)
    assert_close(averaged(models[:1]).state_dict(), states[0], rtol=0, atol=0)
    assert_close(models[2].state_dict(), policy(2).state_dict(), rtol=0, atol=0)  # inputs stay what they were


def test_models_that_cannot_be_averaged_are_refused():
    with pytest.raises(InputError, match="trained from one start"):
        averaged([policy(0), policy(0, width=8)])
    with pytest.raises(InputError, match="got no model"):
        averaged([])


def test_candidates_are_the_rounds_and_averages_of_the_last_ones_with_guidance_off(tmp_path):
    made = [policy(seed) for seed in range(3)]
    folders = [save(one, tmp_path / f"{number}") for number, one in enumerate(made[:2])]
    folders.append(save(Realigned(policy(2), policy(5), 0.7), tmp_path / "2"))
    named = choosing.candidates(folders)
    assert list(named) == ["round-0", "round-1", "round-2", "average-2", "average-3"]
    state = Observation(torch.randn(4, 1, 3))
    assert_close(
        named["round-2"].act(state, torch.Generator().manual_seed(0)),
        made[2].act(state, torch.Generator().manual_seed(0)),
    )
    assert_close(named["average-2"].state_dict(), averaged(made[1:]).state_dict())
    assert list(choosing.candidates(folders[:1])) == ["round-0"]


def test_the_highest_predicted_return_stays_and_the_folder_holds_it(tmp_path, monkeypatch):
    folders = [save(policy(seed, observation=6), tmp_path / f"{seed}") for seed in range(2)]
    config = compose(["env=point_mass", "task=point-mass", "experiment=quickstart", "choose.resets=3", "seed=2"])
    asked, values = [], iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(choosing, "load", lambda path: "reward" if path == tmp_path / "reward" else load(path))
    monkeypatch.setattr(choosing, "act", lambda policy, env, seeds, noise: asked.append(list(seeds)) or [1])
    monkeypatch.setattr(choosing, "predicted_returns", lambda model, episodes: np.array([next(values)]))
    found = choosing.choose(config, folders, None, tmp_path / "reward", tmp_path / "chosen")
    assert found["chosen"] == "round-1" and found["predicted"] == {"round-0": 1.0, "round-1": 3.0, "average-2": 2.0}
    assert_close(load(tmp_path / "chosen" / "policy").state_dict(), load(folders[1]).state_dict(), rtol=0, atol=0)
    first = config["rounds"]["first_reset"] + 20_000 + 1000 * config["rounds"]["count"]
    assert asked == [[first, first + 1, first + 2]] * 3  # all on the same resets, which no round rolls out
    again = choosing.choose(config, folders, None, tmp_path / "reward", tmp_path / "chosen")
    assert again == found and json.loads((tmp_path / "chosen" / "done.json").read_text()) == found


def test_the_base_is_a_candidate_where_it_is_given_and_the_only_one_where_no_round_was_accepted(tmp_path):
    folders = [save(policy(seed), tmp_path / f"{seed}") for seed in range(2)]
    assert list(choosing.candidates(folders[1:], folders[0])) == ["base", "round-0"]
    assert list(choosing.candidates([], folders[0])) == ["base"]
    assert choosing.best({"base": 1.0, "round-0": 1.0}) == "base", "among equals nothing is changed"


def test_of_the_weights_on_the_way_the_best_predicted_ones_are_kept():
    learned, marks = policy(3), {100: policy(0).state_dict(), 200: policy(1).state_dict()}
    last = {name: value.clone() for name, value in learned.state_dict().items()}
    values = iter([1.0, 3.0, 2.0])
    found = choosing.keep_best(learned, marks, lambda: next(values))
    assert found == {"mark/kept": 200.0, "mark/predicted": 3.0, "mark/predicted_last": 2.0}
    assert_close(learned.state_dict(), marks[200], rtol=0, atol=0)
    learned.load_state_dict(last)
    values = iter([1.0, 2.0, 3.0])
    assert choosing.keep_best(learned, marks, lambda: next(values))["mark/kept"] == choosing.LAST
    assert_close(learned.state_dict(), last, rtol=0, atol=0)
