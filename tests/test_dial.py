"""The dial: w = 0 is the base bit for bit, w = 1 what was steered; marks alone teach it; one whole run on the one-second task."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from robopref.envs.point_mass import PointMass
from small_heads import DIMS, HEADS, acted, head
from torch.testing import assert_close

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.store import TrajectoryStore
from robopref.labelers.marks import Marks, contacts, costs
from robopref.losses.marks import marked_loss, pooled
from robopref.policies.dial import Dial
from robopref.policies.gaussian import Gaussian
from robopref.policies.scripted import Imperfection, Scripted
from robopref.rewards.marked import Marked
from robopref.run import compose, main
from robopref.stages.dial import chosen, learn_marks, looks, of_task, show
from robopref.statistics import ratio_of_means
from robopref.types import Dims, Segments


@pytest.mark.parametrize("name", HEADS)
def test_the_ends_of_the_dial_are_the_base_and_the_steered_policy_bit_for_bit(name):
    base, steered = acted(head(name, 1)), acted(head(name, 2))
    dial = Dial(head(name, 1), head(name, 2))
    for weight, wanted in ((0.0, base), (1.0, steered), (0, base)):  # back again: turning leaves nothing behind
        dial.set_weight(weight)
        assert_close(acted(dial), wanted, rtol=0, atol=0)
    dial.set_weight(0.5)
    assert not torch.equal(acted(dial), base)


@pytest.mark.parametrize("weight", [0.25, 0.5, 2.0])
def test_the_mean_of_a_gaussian_moves_by_the_weight(weight):
    options = {"horizon": 8, "execute": 8, "deterministic": True, "width": 32, "depth": 1}
    torch.manual_seed(0)
    base, steered = Gaussian(DIMS, **options), Gaussian(DIMS, **options)
    mean, other = acted(base), acted(steered)
    assert_close(acted(Dial(base, steered, weight)), (mean + weight * (other - mean)).clamp(-1, 1))


@pytest.mark.parametrize("name", HEADS)
def test_a_folder_brings_both_networks_and_the_weight_back(name, tmp_path):
    dial = Dial(head(name, 1), head(name, 2), 0.7)
    save(dial, tmp_path / "policy")
    again = load(tmp_path / "policy")
    assert again.weight == 0.7
    assert_close(acted(again), acted(dial), rtol=0, atol=0)
    again.set_weight(0)
    assert_close(acted(again), acted(head(name, 1)), rtol=0, atol=0)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_below_zero_or_no_number_is_refused(weight):
    dial = Dial(head("gaussian", 1), head("gaussian", 2))
    with pytest.raises(InputError, match=r"Dial.weight: got .*wanted a number >= 0"):
        dial.set_weight(weight)
    assert dial.weight == 1.0


def test_heads_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="other settings"):
        Dial(head("gaussian"), head("diffusion"))
    other = head("gaussian", 2)
    other.normalizer.mean += 1
    with pytest.raises(InputError, match="another normaliser"):
        Dial(head("gaussian"), other)


def test_an_episode_is_as_bad_as_its_average_or_as_its_worst_moment():
    danger, mask = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)), torch.ones(5, 7)
    assert_close(pooled(danger, mask, 0.0), danger.mean(dim=-1))
    assert_close(pooled(danger, mask, 1000.0), danger.amax(dim=-1), rtol=0, atol=3e-3)
    assert_close(pooled(danger, mask, 1e-3), danger.mean(dim=-1), rtol=0, atol=3e-3)
    constant = torch.full((5, 7), 0.3)
    for sharpness in (0.0, 4.0):
        assert_close(pooled(constant, mask, sharpness), torch.full((5,), 0.3))
        padded = torch.cat([danger, torch.full((3, 5, 2), 9.0)], dim=-1)
        longer = torch.cat([mask, torch.zeros(5, 2)], dim=-1)
        assert_close(pooled(padded, longer, sharpness), pooled(danger, mask, sharpness))
    with pytest.raises(InputError, match="sharpness"):
        pooled(danger, mask, -1.0)


def test_both_sides_of_the_marks_weigh_the_same_and_one_alone_teaches_nothing():
    marked = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert_close(marked_loss(torch.zeros(4), marked).sum(), torch.tensor(4 * np.log(2), dtype=torch.float32))
    badness = torch.zeros(4, requires_grad=True)
    marked_loss(badness, marked).mean().backward()
    assert badness.grad is not None
    assert badness.grad[0] < 0 < badness.grad[1]
    assert_close(badness.grad.sum(), torch.tensor(0.0))
    for alike in (torch.ones(4), torch.zeros(4)):
        with pytest.raises(InputError, match="some marked and some not"):
            marked_loss(torch.zeros(4), alike)


def test_a_ratio_of_means_is_exact_where_nothing_varies():
    b = np.arange(1.0, 9.0)
    assert ratio_of_means([(b, b)]) == (1.0, 1.0, 1.0)
    assert_close(ratio_of_means([(2 * b, b), (2 * b[::-1], b[::-1])]), (2.0, 2.0, 2.0))
    value, low, high = ratio_of_means([(np.zeros(8), b)])
    assert value == low == high == 0
    with pytest.raises(InputError, match="mean of 0"):
        ratio_of_means([(b, 0 * b)])


def episode(seed, touched=(), success_at=None, steps=20):
    draw = np.random.default_rng(seed)
    cost, success = np.zeros((steps, 1), np.float32), np.zeros(steps, bool)
    cost[list(touched)] = 1
    if success_at is not None:
        success[success_at:] = True
    seen = draw.normal(size=(steps, 8)).astype(np.float32)
    return Trajectory(
        seen, np.zeros((steps, 2), np.float32), np.zeros(steps, np.float32), success, seed=seed, extra={"cost": cost}
    )


def test_the_rater_marks_what_touched_or_was_slow_and_says_no_more():
    shown = [episode(0, (3, 4, 9)), episode(1), episode(2, (0,), 5)]
    assert [contacts(one) for one in shown] == [2, 0, 1]
    assert Marks("contact").standard(shown).marks(shown).tolist() == [True, False, True]
    fast, slow, failed = episode(3, success_at=4), episode(4, success_at=15), episode(5)
    assert costs([fast, slow, failed], "length").tolist() == [5, 16, 20]
    rater = Marks("length").standard([fast, slow, failed])
    assert rater.marks([fast, slow, failed]).tolist() == [False, False, True]
    assert rater.standard([failed, failed]) == rater and rater.marks([failed]).tolist() == [
        True
    ]  # the standard does not move
    with pytest.raises(InputError, match="no limit"):
        Marks("length").marks([fast])
    with pytest.raises(InputError, match="without a cost"):
        contacts(replace(fast, extra={}))
    with pytest.raises(InputError, match="wanted one of contact, length"):
        Marks("beauty")


def test_the_least_bad_of_each_reset_are_learned_from_against_the_worst():
    seeds = np.repeat([7, 8, 9], 4)
    bad = np.array([-3.0, -2.0, 1.0, 4.0, 5.0, -1.0, 2.0, 3.0, 0.1, 0.2, 0.3, 0.4])
    anchors, pairs = chosen(bad, seeds, 0.5)
    assert anchors.tolist() == [0, 1, 5]  # nothing of the third reset would pass, so nothing of it is an example
    assert pairs.first.tolist() == [0, 5] and pairs.second.tolist() == [3, 4] and (pairs.prob_first > 0.99).all()
    assert chosen(bad + 10, seeds, 0.25)[0].tolist() == [0, 5, 8]


def test_what_is_learned_reads_the_marks_alone():
    config = of_task(compose(["experiment=safety_dial", "task=point-mass", "dial.marks.steps=10"]))
    every = [episode(k, (3,) if k % 2 else ()) for k in range(6)]
    marked = np.array([False, True] * 3)
    blind = [
        replace(t, reward=t.reward + k, success=~t.success, extra={"cost": 1 - t.extra["cost"]})
        for k, t in enumerate(every)
    ]
    one, other = (learn_marks(config, episodes, episodes, marked)[0] for episodes in (every, blind))
    for key, value in one.state_dict().items():
        assert_close(other.state_dict()[key], value, rtol=0, atol=0)


def test_the_model_of_marks_sees_named_things_as_they_stand_to_each_other(tmp_path):
    torch.manual_seed(0)
    model = Marked(Dims(8, 2), {"hand": [0, 2], "goal": [4, 6], "hazard": [6, 8]})
    seen, mask = torch.randn(3, 5, 8), torch.ones(3, 5)
    moved = seen.clone()
    moved[..., [0, 1, 4, 5, 6, 7]] += 1.0  # all of them: nothing has changed between them
    here, there = (Segments(x, torch.zeros(3, 5, 2), mask) for x in (seen, moved))
    assert model.features(seen).shape == (3, 5, 9)
    assert_close(model.badness(there), model.badness(here))
    assert_close(model.returns(here), -model.badness(here))
    still = Marked(Dims(8, 2), {"hand": [0, 2], "wall": {"at": [0.5, -0.5]}})
    apart = seen[..., :2] - torch.tensor([0.5, -0.5])
    assert_close(still.features(seen), torch.cat([apart, apart.norm(dim=-1, keepdim=True)], dim=-1))
    save(model, tmp_path / "model")
    assert_close(load(tmp_path / "model").score(here), model.score(here), rtol=0, atol=0)
    for wrong in (
        {"hand": [0, 2]},
        {"hand": [0, 2], "goal": [4, 9]},
        {"hand": [0, 2], "goal": [4, 7]},
        {"hand": [0, 2], "wall": {"on": [1.0, 2.0]}},
    ):
        with pytest.raises(InputError, match=r"Marked\.quantities"):
            Marked(Dims(8, 2), wrong)


def played(care, seed):
    env = PointMass()
    observation, _ = env.reset(seed=seed, options={"care": care})
    actor = Scripted(env, Imperfection(), np.random.default_rng(0))
    told = [env.step(actor.act(observation if k == 0 else env._observation()))[4] for k in range(env.horizon)]
    return any(one["cost"] for one in told), any(one["success"] for one in told)


@pytest.mark.parametrize("seed", range(5))
def test_care_is_what_takes_the_expert_around_the_hazard(seed):
    assert played(1.0, seed) == (False, True) and played(0.0, seed) == (True, True)
    with pytest.raises(InputError, match="care"):
        PointMass().reset(seed=0, options={"care": 2.0})


def test_pace_scales_the_expert_s_action():
    env = PointMass()
    observation, _ = env.reset(seed=3)
    full, slow = (Scripted(env, Imperfection(pace=p), np.random.default_rng(0)).act(observation) for p in (1.0, 0.5))
    np.testing.assert_allclose(slow, 0.5 * full, rtol=1e-6)
    with pytest.raises(InputError, match="pace"):
        Imperfection(pace=0)


@pytest.mark.slow
def test_the_careless_expert_of_a_wall_task_touches_the_wall_and_the_careful_one_does_not():
    from robopref.envs.metaworld import MetaWorld

    env = MetaWorld("reach-wall", horizon=100, contacts=["wall"])
    touched = {1.0: 0.0, 0.0: 0.0}
    for care in touched:
        for seed in range(6):
            observation, _ = env.reset(seed=seed, options={"care": care})
            for _ in range(100):
                observation, _, _, _, info = env.step(env.expert(observation))
                touched[care] += info["cost"]
    assert touched[0.0] > 0 and touched[1.0] < touched[0.0]
    with pytest.raises(InputError, match=r"Near: .*wall"):
        MetaWorld("reach-wall", contacts=["walls"])
    with pytest.raises(InputError, match="1 in a task without a wall"):
        MetaWorld("reach").reset(seed=0, options={"care": 0.5})


SMALL = [
    "experiment=safety_dial", "task=point-mass", "workers=1", "pairs=20", "base.demonstrations=60", "rounds.count=2", "dial.tasks.point-mass.clone.steps=600",
    "dial.tasks.point-mass.rounds={resets: 20, replicas: 3}", "align.steps=20", "dial.marks.steps=40", "evaluation.episodes=6", "dial.weights=[0,0.5,1]", "dial.headline=1",
    "policy=gaussian", "policy.width=64", "policy.depth=2",
    *(f"+dial.tasks.point-mass.behaviours.careful{n}={{care: 1.0}}" for n in (2, 3, 4, 5)),
]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("dial") / "run"
    main("run", [*SMALL, f"out={out}"])
    return out, json.loads((out / "metrics.json").read_text())


def test_a_run_ends_with_one_policy_its_frontier_and_a_page(done):
    out, metrics = done
    assert list(metrics["policies"]) == ["base", "w=0", "w=0.5", "w=1"] and metrics["zero_is_base"]
    assert metrics["labels_asked"] == 20 and 0 < metrics["labels_marked"] < 20 and metrics["headline"] == "w=1"
    for one in metrics["policies"].values():
        assert one["cost_ci95"][0] <= one["cost"] <= one["cost_ci95"][1] and one["episodes"] == 6
    assert {(t["a"], t["b"]) for t in metrics["tests"]} == {(f"w={w}", "base") for w in ("0", "0.5", "1")}
    zero = next(t for t in metrics["tests"] if t["a"] == "w=0")
    assert zero["cost_saved"] == zero["difference"] == 0
    assert (out / "figures/frontier.png").read_bytes()[:4] == b"\x89PNG" and "frontier" in (
        out / "report.html"
    ).read_text()
    assert isinstance(load(out / "dial/policy"), Dial) and metrics["seconds"]["steer"] > 0


def test_a_run_does_again_what_is_asked_and_comes_to_the_same(done):
    out, metrics = done
    main("run", [*SMALL, f"out={out}", "stages=[steer,evaluate,report]"])
    again = json.loads((out / "metrics.json").read_text())
    for key in ("policies", "tests", "promise", "labels_marked"):
        assert again[key] == metrics[key]


def test_marks_are_kept_with_what_was_shown(done):
    out, metrics = done
    rows, every = [], []
    for place in sorted((out / "rounds").iterdir()):
        store = TrajectoryStore(place / "rollouts/store")
        own = json.loads((place / "marks/done.json").read_text())["marks"]
        at = [row["episode"] - len(every) for row in own]
        assert [store.episode_hash(i) for i in at] == [row["hash"] for row in own]
        assert len({store.episodes[i].seed for i in at}) == len(own)
        every += store.load()
        rows += own
    assert len(rows) == metrics["labels_asked"] == sum(one["looks"] for one in metrics["rounds"])
    assert [bool(every[row["episode"]].extra["cost"].any()) for row in rows] == [row["bad"] for row in rows]


def test_looks_are_shared_by_the_rounds_and_never_more_than_asked_for():
    assert looks(30, 3, 0.5) == [15, 8, 7] and looks(30, 1, 0.5) == [30] and looks(1, 3, 0.5) == [1, 0, 0]
    config = of_task(compose(["experiment=safety_dial", "task=point-mass", "pairs=6", "rounds.count=2"]))
    made = [replace(episode(k, (3,) if k in (2, 9) else ()), seed=1_000_000 + k // 2) for k in range(20)]
    rows = show(config, made, 0, [], None, 0)
    assert 3 <= len(rows) <= 6 and (len(rows) == 6 or {row["bad"] for row in rows} == {True, False})
    more = show(config, [replace(t, seed=t.seed + 1000) for t in made], 1, rows[:3], _Sure(), 20)
    assert len(more) <= 6 - 3 and more[0]["episode"] == 20 + 7  # where it is least sure


class _Sure:
    """A model that is unsure of the eighth episode alone."""

    def badness(self, segments):
        return torch.where(torch.arange(len(segments)) == 7, 0.0, 5.0)[None]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("dial.weights=[0,-0.5,1]", "wanted numbers >= 0"),
        ("dial.weights=[0.5,1.5]", "with 0 and the headline"),
        ("dial.headline=1.25", "with 0 and the headline"),
        ("dial.keep=1.0", "wanted a share"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_anything_runs(wrong, said, tmp_path):
    with pytest.raises(InputError, match=said):
        main("run", ["experiment=safety_dial", "task=point-mass", wrong, f"out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_every_task_of_the_preset_names_what_a_run_needs():
    preset = compose(["experiment=safety_dial"])
    for task in preset["dial"]["tasks"]:
        own = of_task({**preset, "task": task})["dial"]
        assert own["cost"] in preset["dial"]["target"] and len(own["behaviours"]) == 2
        Marked(Dims(39 if task != "point-mass" else 8, 2), own["quantities"])
        for how in own["behaviours"].values():
            Imperfection(**{k: v for k, v in how.items() if k != "care"})
    assert Path(__file__).parents[1].joinpath("conf/experiment/safety_dial.yaml").is_file()
