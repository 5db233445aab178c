"""Every experiment of the loop on the one-second task: it runs, is what its preset says, and resumes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load
from robopref.data.store import TrajectoryStore
from robopref.learners.align import PairTable
from robopref.losses.multi_objective import modpo
from robopref.losses.pairwise import sigmoid
from robopref.policies.best_of import BestOf
from robopref.policies.conditioned import Conditioned
from robopref.run import compose, main
from robopref.stages import align as rounds
from robopref.stages.evidence import check_compared
from robopref.stages.ranking import from_answers, rank, rejection, semi_policy

SPEC = Path(__file__).parent / "point_mass_stages.yaml"
SMALL = [
    "env=point_mass", "task=point-mass", "workers=1", "pairs=12", "base.demonstrations=8", "base.episodes=6", "base.rounds=1",
    "base.clone.steps=60", "rounds.count=2", "rounds.resets=4", "rounds.replicas=3", "align.steps=24", "guard.every=12", "gate.episodes=6",
    "evaluation.episodes=6", "evaluation.videos=0", "reward_fit.steps=20", "stages=[collect,pretrain,align,evaluate]",
]  # fmt: skip
THIN = ["policy.width=32", "policy.depth=1", "policy.diffusion_steps=16", "policy.sample_steps=4"]
TOLD = "policy.arguments={horizon: 8, execute: 8, width: 32, depth: 1, sample_steps: 4, probes: 2}"
STAGED = [f"objectives.others.{n}.spec={SPEC}" for n in (0, 1)]


def words(name, *more):
    own = {"recap": [TOLD], "grape": [*THIN, f"labeler.spec={SPEC}"], "modpo": [*THIN, *(f"+{one}" for one in STAGED)]}
    ranked = compose([f"experiment={name}"])["rank_by"] == "reward"
    rater = [] if name == "grape" else ["labeler=return"]  # at this size nothing succeeds, and ties teach nothing
    return [f"experiment={name}", *SMALL, f"choose.resets={3 if ranked else 0}", *rater, *own.get(name, THIN), *more]


def run(name, out, *more):
    main("run", [*words(name, *more), f"out={out}"])
    return json.loads((out / "metrics.json").read_text())


def timeless(metrics):
    return {k: v for k, v in metrics.items() if k not in ("seconds", "command", "base_search")}


@pytest.mark.parametrize(
    "name",
    [
        "diffusion_dpo",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("iterate", "forty_labels", "mapo", "seppo", "deformpam", "modpo", "recap")
        ),
    ],
)
def test_an_experiment_runs_to_its_metrics(name, tmp_path):
    metrics, config = run(name, tmp_path / "run", "rounds.count=1"), compose(words(name, "rounds.count=1"))
    assert set(metrics["policies"]) == {"base", "aligned", *config["baselines"]}
    assert metrics["labels_asked"] == 12 and 6 < metrics["episodes_judged"] <= 12
    policy = load(tmp_path / "run/arms/aligned/round-0/align/policy")
    assert isinstance(policy, BestOf) == (name == "deformpam") and isinstance(policy, Conditioned) == (name == "recap")
    if name == "recap":
        assert policy.guidance == 1.5 and load(tmp_path / "run/base/level-0.3333/policy").guidance == 1.0
    for row in metrics["guard"]:
        assert row["ci95_after"][0] <= row["success_after"] <= row["ci95_after"][1] and "guard/kl" in row


@pytest.fixture(scope="module")
def grape(tmp_path_factory):
    out = tmp_path_factory.mktemp("grape") / "run"
    return out, run("grape", out, "stages=[collect,pretrain,align,evaluate,report]")


def test_grape_ranks_by_scores_that_hold_the_acting_policy_s_likelihood(grape):
    out, metrics = grape
    assert metrics["labels_asked"] == 2 * 12 and "scored every rollout" in metrics["notes"][0]
    store = TrajectoryStore(out / "rounds/rollouts/store").load()
    scores = json.loads((out / "rounds/labels/scores.json").read_text())
    assert all(t.extra["log_prob"].shape == (len(t), 1) for t in store) and len(scores) == len(store)
    policy = load(out / json.loads((out / "base/base.json").read_text())["policy"])
    assert {t.policy for t in store} and np.isfinite([t.extra["log_prob"] for t in store]).all()
    assert policy.spec.execute == 8 and len({float(t.extra["log_prob"][0, 0]) for t in store}) > 1
    page = (out / "report.html").read_text()
    assert "KL" in page and "gate resets" in page
    assert "How good is this trajectory?" in page and "Which of these two" not in page, "nothing was compared"
    assert "never the simulator" not in page and "a score may look at success" in page


def test_a_loop_that_was_cut_off_goes_on_to_the_same_result(grape, tmp_path, monkeypatch):
    calls, compare = [], rounds.compare

    def cut(config, old, new):
        calls.append(new)
        if len(calls) == 3:  # the first round's gates of both arms are done
            raise KeyboardInterrupt
        return compare(config, old, new)

    monkeypatch.setattr(rounds, "compare", cut)
    with pytest.raises(KeyboardInterrupt):
        run("grape", tmp_path / "cut")
    monkeypatch.setattr(rounds, "compare", compare)
    assert timeless(run("grape", tmp_path / "cut")) == timeless(grape[1])


@pytest.mark.slow
@pytest.mark.parametrize("more", ["learner=kto", "learner=plackett_luce", "learner=d2o", "pairing=curriculum"])
def test_the_same_loop_learns_from_lists_flags_and_a_curriculum(more, tmp_path):
    main(
        "run",
        [
            *words("align_metaworld", more, "baselines=[]", "rounds.count=1", "choose.resets=3"),
            f"out={tmp_path / 'run'}",
        ],
    )
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert set(metrics["policies"]) == {"base", "aligned"} and metrics["labels_asked"] == 12
    (row,) = metrics["guard"]
    assert row["pairs"] >= 1 and row["anchors"] >= 1
    base = load(tmp_path / "run" / json.loads((tmp_path / "run/base/base.json").read_text())["policy"]).state_dict()
    learned = load(tmp_path / "run/arms/aligned/round-0/align/policy").state_dict()
    assert any(not torch.equal(base[k], learned[k]) for k in base)


@pytest.mark.parametrize("wrong", [["loss=robust", "loss.flip=0.6"], ["loss=exo", "loss.flip=0"]])
def test_a_loss_with_impossible_numbers_is_told_before_the_folder_is_claimed(tmp_path, wrong):
    with pytest.raises(InputError, match=r"loss\.flip: got"):
        main("run", [*words("align_metaworld", *wrong), f"out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_another_objective_is_another_labeler(tmp_path):
    for objective in ("safety", "efficiency"):
        assert compose(["experiment=grape", f"labeler=stages_{objective}"])["labeler"]["objective"] == objective


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["experiment=modpo", "objectives.weights=[0.6,0.2,0.3]"], "sum to one"),
        (["experiment=modpo", "objectives.weights=[1.0]"], "2 others"),
        (["experiment=recap", "condition.guidance=-1"], "condition.guidance"),
        (["experiment=recap", "policy=diffusion", "~policy.guidance"], "policy=conditioned"),
        (["experiment=grape", "best_of.candidates=4"], "score of its own"),
        (["experiment=diffusion_dpo", "baselines=[aligned_no_pairs]"], "learn from nothing"),
        (["rank_by=score"], "wanted one of reward, scores, answers"),
        (["learner=dpo"], "wanted one of align"),
        (["baselines=[filterd]"], "wanted some of cloned"),
        (["rank_by=scores", "choose.resets=0", "labeler=people", "dataset=x"], "do not score"),
        (["rank_by=answers"], "learns no reward to choose by"),
        (["rank_by=answers", "choose.resets=0", "pairing=rejection"], "every rollout ranked"),
        (["rank_by=answers", "choose.resets=0", "learner=plackett_luce"], "every rollout of a reset ranked"),
        (["experiment=grape", "pairing=curriculum"], "how far|clear pairs first"),
        (["experiment=modpo", "learner=kto"], "does not weigh them"),
        (["experiment=modpo", "loss=bco"], "difference of two scores"),
    ],
)
def test_a_contradiction_is_told_before_anything_runs(wrong, said):
    with pytest.raises(InputError, match=said):
        compose(wrong)


@pytest.mark.parametrize(("spec", "said"), [(None, "no specification"), ("torn", "torn.yaml:4.*unknown|hnad")])
def test_stages_that_do_not_fit_are_told_before_the_folder_is_claimed(tmp_path, spec, said):
    given = [w for w in words("grape") if not w.startswith("labeler.spec")]
    if spec:
        text = SPEC.read_text().replace("distance: [point, goal], below", "distance: [hnad, goal], below")
        (tmp_path / "torn.yaml").write_text(text)
        given.append(f"labeler.spec={tmp_path / 'torn.yaml'}")
    with pytest.raises(InputError, match=said):
        main("run", [*given, f"out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def episode(seed, policy="a", acted=True):
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (4, 2)).astype(np.float32)
    acts = (
        {"chunk": np.repeat(action[:, None], 4, 1), "executed": np.eye(4, dtype=bool)[:, [0]].repeat(4, 1)}
        if acted
        else {}
    )
    return Trajectory(
        rng.normal(size=(4, 3)).astype(np.float32), action, np.zeros(4, np.float32), np.zeros(4, bool), policy=policy, seed=seed, **acts
    )  # fmt: skip


def table(first, second, prob=None):
    count = len(first)
    return PairTable(
        torch.tensor(first), torch.tensor(second), torch.ones(count) if prob is None else torch.tensor(prob), torch.ones(count)
    )  # fmt: skip


def test_a_pair_must_be_of_two_episodes_of_one_policy():
    with pytest.raises(InputError, match="winner and loser of one pair"):
        table([3, 1], [2, 1])
    with pytest.raises(InputError, match="share no policy"):
        check_compared([episode(0), episode(1, "b")], table([0], [1]))
    with pytest.raises(InputError, match="winner and loser are the same"):
        check_compared([episode(0), episode(0)], table([0], [1]))
    check_compared([episode(0), episode(0)], table([0], [1], [0.5]))
    check_compared([episode(0, "noisy", acted=False), episode(1, "bias", acted=False)], table([0], [1]))


def test_resets_with_one_rollout_make_no_pairs():
    with pytest.raises(InputError, match="two rollouts"):
        rank(np.arange(4.0), np.arange(4), np.zeros(4, int), top=0.3, held_out=0.2, seed=0)
    equal = rank(np.zeros(6), np.repeat(np.arange(3), 2), np.zeros(6, int), top=0.3, held_out=0.2, seed=0)
    assert (equal.train.first != equal.train.second).all(), "equal rollouts are still two"


def test_what_a_conditioned_policy_is_told_leaves_out_what_watches():
    predicted, seeds = np.array([5.0, -5, 4, -4, 3, -3, 2, -2]), np.repeat(np.arange(4), 2)
    ranking = rank(predicted, seeds, np.zeros(8, int), top=0.25, held_out=0.25, seed=0)
    watched = {*ranking.held_out.first.tolist(), *ranking.held_out.second.tolist()}
    assert {i for i, x in enumerate(ranking.indicator.tolist()) if x == 0} == watched
    assert {i for i, x in enumerate(ranking.indicator.tolist()) if x == 1} == set(ranking.anchors.tolist())


def test_answers_alone_give_the_winners_as_anchors():
    ranking = from_answers(table([0, 2, 4, 6], [1, 3, 5, 7], [1.0, 0.0, 0.5, 1.0]), 9, held_out=0.0, seed=0)
    assert ranking.indicator[8] == 0 and not {1, 2, 4, 5} & set(ranking.anchors.tolist())
    with pytest.raises(InputError, match="Label more pairs"):
        from_answers(table([0, 2], [1, 3], [0.5, 0.5]), 4, held_out=0.0, seed=0)


def test_winners_meet_earlier_checkpoints_of_their_reset():
    predicted = np.array([5.0, -5, 4, -4, 3, -3, 6, -6])
    seeds, made_in = np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.repeat([0, 1], 4)
    ranking = rank(predicted, seeds, made_in, top=0.4, held_out=0.2, seed=0)
    pairs = semi_policy(ranking, seeds, made_in, seed=0).train
    assert set(pairs.first.tolist()) <= set(ranking.anchors.tolist())
    assert (seeds[pairs.first] == seeds[pairs.second]).all() and (pairs.prob_first == 1).all()
    watched = {*ranking.held_out.first.tolist(), *ranking.held_out.second.tolist()}
    assert not watched & {*pairs.first.tolist(), *pairs.second.tolist()}
    soft = rejection(ranking, predicted, seeds, made_in, seed=0).train
    assert (seeds[soft.first] == seeds[soft.second]).all() and (made_in[soft.first] == made_in[soft.second]).all()
    assert (
        (soft.prob_first > 0.5) == (torch.from_numpy(predicted)[soft.first] > torch.from_numpy(predicted)[soft.second])
    ).all()


def test_a_lead_in_the_pair_table_is_modpo():
    generator = torch.Generator().manual_seed(0)
    first, second, prob = (torch.rand(7, generator=generator) for _ in range(3))
    one, other = torch.randn(2, 7, 2, generator=generator)
    from robopref.losses.multi_objective import modpo_lead

    weights = [0.5, 0.3, 0.2]
    lead = modpo_lead(one - other, weights)
    wanted = modpo(first, second, prob, one, other, weights=weights)
    assert_close(sigmoid(first / weights[0] - lead, second / weights[0], prob), wanted)
