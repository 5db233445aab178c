"""The policy that looks and reads: its size, its exact score, what it is refused for, and the experiment with it."""

import shutil
import time
from dataclasses import replace
from itertools import product

import pytest
import torch
from hydra.utils import instantiate
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.checkpoint import load
from robopref.data.files import read_json
from robopref.data.phrasings import read_phrasings
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.policies.vla import FlowVLA, TokenVLA
from robopref.run import compose
from robopref.stages import vla
from robopref.types import Chunks, Dims, Observation

EYES = {"cameras": ["top"], "size": 16, "width": 8, "shift": 0}
SMALL = {"width": 16, "depth": 1, "heads": 2, "words": 4, "buckets": 32}


def observation(batch=3, dims=3, history=1, size=16, sentence="open the drawer"):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (batch, history, size, size, 3), generator=generator, dtype=torch.uint8)
    state = torch.randn(batch, history, dims, generator=generator)
    return Observation(state, {"top": pictures}, (sentence,) * batch)


@pytest.mark.parametrize("name", ["vla_tokens", "vla_flow", "vla_small"])
def test_a_preset_has_at_most_five_million_parameters(name):
    policy = instantiate(compose([f"policy={name}"])["policy"], _partial_=True)(dims=Dims(39, 4))
    assert sum(p.numel() for p in policy.parameters()) <= 5_000_000


def test_token_probabilities_of_all_chunks_sum_to_one():
    torch.manual_seed(0)
    policy = TokenVLA(Dims(3, 1), EYES, horizon=3, execute=3, bins=3, **SMALL)
    every = torch.tensor(list(product(range(3), repeat=3)))[..., None]  # (27, 3, 1)
    seen = observation(1)[torch.zeros(27, dtype=torch.int64)]
    centres = policy.normalizer.unaction((every + 0.5) / 3 * 2 - 1)
    chunks = Chunks(seen, centres, torch.ones(27, 3, 1))
    assert policy.score(chunks, policy.draw(chunks, torch.Generator())).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_tokens_are_sampled_as_often_as_they_are_scored():
    torch.manual_seed(0)
    policy = TokenVLA(Dims(3, 1), EYES, horizon=1, execute=1, bins=3, **SMALL)
    seen = observation(1)
    wanted = policy.logits(policy.encode(seen)).softmax(dim=-1).flatten().detach()
    many = seen[torch.zeros(400, dtype=torch.int64)]
    samples = ((policy.act(many, torch.Generator().manual_seed(1)) + 1) / 2 * 3).floor().flatten()
    found = torch.stack([(samples == k).float().mean() for k in range(3)])
    assert (found - wanted).abs().max() < 0.1  # four standard errors


@pytest.mark.parametrize("head", [TokenVLA, FlowVLA])
def test_what_is_said_seen_and_felt_each_changes_the_score(head):
    torch.manual_seed(0)
    policy = head(Dims(3, 2), EYES, horizon=2, execute=2, **SMALL).eval()
    seen = observation()
    chunks = Chunks(seen, torch.zeros(3, 2, 2), torch.ones(3, 2, 2))
    draws = policy.draw(chunks, torch.Generator().manual_seed(0))
    before = policy.score(chunks, draws)
    others = [
        replace(seen, sentence=("close the drawer",) * 3), replace(seen, images={"top": 255 - seen.images["top"]}),
        replace(seen, state=seen.state + 1),
    ]  # fmt: skip
    for other in others:
        assert not torch.equal(policy.score(replace(chunks, observation=other), draws), before)
    padded = replace(seen, sentence=("open the drawer",) * 2 + ("open the drawer now",))
    after = policy.score(replace(chunks, observation=padded), draws)
    assert_close(after[:2], before[:2])
    assert not torch.equal(after[2], before[2])


def test_numbers_that_may_not_be_read_do_not_reach_the_score():
    torch.manual_seed(0)
    policy = TokenVLA(Dims(3, 2), {**EYES, "state": [0]}, horizon=2, execute=2, **SMALL).eval()
    blind = TokenVLA(Dims(3, 2), {**EYES, "state": []}, horizon=2, execute=2, **SMALL).eval()
    seen = observation()
    moved = replace(seen, state=seen.state + torch.tensor([0.0, 5.0, -5.0]))
    elsewhere = replace(seen, state=seen.state + 1)
    for head, other in ((policy, moved), (blind, elsewhere)):
        one, two = (head.score(Chunks(o, torch.zeros(3, 2, 2), torch.ones(3, 2, 2)), None) for o in (seen, other))
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentence": ()}, "got no sentence"),
        ({"sentence": ("one two three four five",) * 3}, "got 5 words .* wanted at most 4"),
        ({"images": {}}, "got no pictures by 'top'"),
        ({"images": {"top": torch.zeros(3, 1, 20, 20, 3, dtype=torch.uint8)}}, "wanted .*16, 16"),
    ],
)
def test_what_the_policy_cannot_read_or_see_is_refused(change, message):
    policy = FlowVLA(Dims(3, 2), EYES, horizon=2, execute=2, **SMALL)
    with pytest.raises(InputError, match=message):
        policy.act(replace(observation(), **change), torch.Generator())


@pytest.mark.parametrize(
    "made",
    [
        lambda: TokenVLA(Dims(3, 2), EYES, bins=1), lambda: TokenVLA(Dims(3, 2), EYES, width=15),
        lambda: TokenVLA(Dims(3, 2), EYES, words=0), lambda: FlowVLA(Dims(3, 2), EYES, probes=0),
        lambda: FlowVLA(Dims(3, 2), {**EYES, "cameras": []}),
    ],
)  # fmt: skip
def test_impossible_policies_are_refused(made):
    with pytest.raises(InputError, match="wanted"):
        made()


SAID = {"trained": ["go to the goal", "reach it"], "held_out": ["move to the goal"]}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({}, "got no tasks"),
        ({"a": {"trained": ["x"]}}, r"language\.tasks\.a: .* wanted trained and held_out"),
        ({"a": {"trained": ["x"], "held_out": []}}, "at least one sentence"),
        ({"a": {"trained": ["go"], "held_out": ["Go!"]}}, r"'Go!' in a\.trained and in a\.held_out"),
        ({"a": SAID, "b": {"trained": ["reach it"], "held_out": ["y"]}}, "wanted every sentence once"),
        ({"a": {"trained": ["one two three four five six"], "held_out": ["y"]}}, "got 6 words"),
    ],
)
def test_phrasings_that_say_too_little_are_refused(tasks, message):
    with pytest.raises(InputError, match=message):
        read_phrasings({"tasks": tasks}, 5)


def test_the_ten_tasks_have_several_phrasings_each():
    config = compose(["experiment=vla"])
    phrasings = read_phrasings(config["language"], config["policy"]["words"])
    assert len(phrasings) == 10 and all(len(p.trained) >= 3 and len(p.held_out) >= 2 for p in phrasings.values())
    assert list(read_phrasings(config["language"], 8, ["drawer-open"])) == ["drawer-open"]
    with pytest.raises(InputError, match=r"vla\.tasks: got juggle"):
        read_phrasings(config["language"], 16, ["juggle"])


TINY = [
    "experiment=vla", "workers=1", "policy.eyes.size=16", "policy.eyes.width=8", "policy.width=16", "policy.depth=1", "env.image_size=16",
    "env.horizon=8", "policy.horizon=4", "policy.execute=4", "base.demonstrations=4", "base.clone.steps=2", "base.clone.batch=4",
    "rounds.count=1", "rounds.resets=3", "rounds.replicas=2", "reward_fit.steps=2", "align.steps=2", "align.anchor_chunks=4",
    "align.pairs_per_step=2", "align.chunks_per_trajectory=2", "evaluation.episodes=2", "pairs=8",
    "vla.judge_demonstrations=false",
]  # fmt: skip


def check_run(out, tasks):
    """What the folder of a tiny run holds."""
    found = read_json(out / "metrics.json")
    assert list(found["policies"]) == ["base", "aligned", "filtered"] and found["labels_asked"] == 8
    for one in found["policies"].values():
        assert list(one["tasks"]) == tasks and one["episodes"] == 4 * len(tasks)
        assert {w: one["phrasings"][w]["episodes"] for w in one["phrasings"]} == dict.fromkeys(
            ("trained", "held_out"), 2 * len(tasks)
        )
        assert 0 <= one["ci95"][0] <= one["success_rate"] <= one["ci95"][1] <= 1
    assert [(t["a"], t["b"]) for t in found["tests"]][:2] == [("aligned", "base"), ("aligned", "filtered")]
    assert "held-out phrasings" in (out / "report.html").read_text()
    (round_,) = found["rounds"]
    assert round_["pairs"] >= 1 and round_["anchors"] >= 1 and round_["trajectories"] == 6 * len(tasks)
    return found


def point_mass(*more):
    config = compose(
        [*TINY, "env=point_mass", "task=point-mass", "policy.eyes.cameras=[top]", "policy=vla_tokens", *more]
    )
    return {**config, "language": {"tasks": {"point-mass": SAID}}}


def test_a_run_asks_learns_and_measures_and_resumes_to_the_same_result(tmp_path):
    config, out = point_mass(), tmp_path / "run"
    vla.run(config, out, "robopref run experiment=vla")
    found = check_run(out, ["point-mass"])
    store = TrajectoryStore(out / "demonstrations/point-mass/store")
    assert [t.sentence for t in store] == ["go to the goal", "reach it"] * 2
    rolled = TrajectoryStore(out / "rounds/round-0/tasks/point-mass/rollouts/store")
    asked = {}
    for one in rolled:
        asked.setdefault(one.seed, set()).add(one.sentence)
    assert len(asked) == 3 and all(len(said) == 1 for said in asked.values()), "compared rollouts were asked alike"
    before, after = (load(out / p / "policy").state_dict() for p in ("base", "rounds/round-0/align"))
    assert any(not torch.equal(before[k], after[k]) for k in before)
    for name in ("evaluation/aligned", "rounds/round-0/align", "metrics.json"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    vla.run(config, out, "robopref run experiment=vla")
    again = read_json(out / "metrics.json")
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    assert all(torch.equal(v, load(out / "rounds/round-0/align/policy").state_dict()[k]) for k, v in after.items())


@pytest.mark.parametrize("judged", [True, False])
def test_every_question_belongs_to_one_part_and_task(judged):
    config = {"pairs": 23, "rounds": {"count": 3}, "vla": {"judge_demonstrations": judged}}
    shares = [[vla.questions(config, part, at, 4) for at in range(4)] for part in range(vla.parts_of(config))]
    assert sum(map(sum, shares)) == 23 and len(shares) == 3 + judged
    assert max(map(max, shares)) - min(map(min, shares)) <= 1


def test_judged_demonstrations_teach_beside_rollouts(tmp_path):
    config, out = point_mass("vla.judge_demonstrations=true"), tmp_path / "run"
    vla.run({**config, "stages": ["collect", "pretrain", "align"]}, out, "robopref run experiment=vla")
    assert read_json(out / "rounds/round-0/align/done.json")["trajectories"] == 6 + 4
    stores = ("demonstrations/point-mass/store", "rounds/round-0/tasks/point-mass/rollouts/store")
    assert [len(PreferenceStore(TrajectoryStore(out / one)).pairs()) for one in stores] == [4, 4]


@pytest.mark.gl
def test_one_policy_learns_two_meta_world_tasks(tmp_path):
    config = compose([*TINY, "vla.tasks=[drawer-open,drawer-close]"])
    vla.run(config, tmp_path / "run", "robopref run experiment=vla")
    check_run(tmp_path / "run", ["drawer-open", "drawer-close"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["policy=flow"], "does not look and read"), (["vla.faulty=2"], r"vla\.faulty: got 2"),
        (["pairs=2", "rounds.count=2", "vla.judge_demonstrations=true"], "pairs: got 2, wanted at least 3"), (["vla.baselines=[magic]"], r"vla\.baselines: got magic"),
        (["rank_by=answers", "choose.resets=0"], "rank_by: got answers, wanted reward"), (["pairing=semi_policy"], "pairing: got semi_policy"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_meant_is_refused_before_it_begins(more, message, tmp_path):
    config = {
        **compose(["experiment=vla", "env=point_mass", "task=point-mass", *more]),
        "language": {"tasks": {"point-mass": SAID}},
    }
    with pytest.raises(InputError, match=message):
        vla.run(config, tmp_path / "run", "robopref run experiment=vla")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["vla_tokens", "vla_flow"])
def test_a_chunk_takes_at_most_sixty_milliseconds_of_one_core(name):
    preset = compose([f"policy={name}"])["policy"]
    policy = instantiate(preset, _partial_=True)(dims=Dims(39, 4)).eval()
    pictures = torch.zeros(1, 1, 84, 84, 3, dtype=torch.uint8)
    seen = Observation(torch.zeros(1, 1, 39), {"corner2": pictures}, ("open the drawer",))
    spent = []
    for _ in range(4):
        begin = time.process_time()  # what the machine does beside it does not count
        policy.act(seen, torch.Generator().manual_seed(0))
        spent.append(time.process_time() - begin)
    assert min(spent) <= 0.06
