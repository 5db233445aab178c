"""Stage specifications checked to the line, and stage costs that tell good from faulty episodes of real Meta-World."""

import json

import numpy as np
import pytest
from robopref.envs.metaworld import MetaWorld

from robopref.arrays import InputError, Trajectory
from robopref.data.stage_spec import parse, read, ready, ready_spec, schema
from robopref.labelers.stages import OBJECTIVES, PUBLISHED, Stages
from robopref.policies.scripted import Imperfection, Scripted

GOOD = """\
task: line
quantities:
  hand: [0, 3]
  block: [3, 6]
  force: { extra: contact, columns: [0, 1] }
keypoints:
  home: { of: hand, at: start }
  above: { of: block, offset: [0, 0, 0.1] }
stages:
  - name: reach
    until: { distance: [hand, block], below: 0.1 }
    costs:
      - { kind: path, distance: [hand, block], weight: 2, tolerance: 0.5 }
      - { kind: collision, where: { value: force, above: 1 } }
  - name: lift
    until:
      all:
        - { moved: block, axes: z, above: 0.05 }
        - not: { speed: hand, above: 0.5 }
    costs:
      - { kind: grasp, where: { any: [{ value: hand.z, below: 0 }, { distance: [hand, above], above: 1 }] } }
"""


def episode(hand, block, force=None, success=False, **extra):
    hand, block = np.asarray(hand, np.float32), np.asarray(block, np.float32)
    steps = len(hand)
    force = np.zeros(steps) if force is None else np.asarray(force)
    extra = {"contact": force[:, None].astype(np.float32), **extra}
    observation, zeros = np.concatenate([hand, block], axis=1), np.zeros(steps, np.float32)
    return Trajectory(observation, np.zeros((steps, 2), np.float32), zeros, zeros + success > 0, "line", extra=extra)


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "line.yaml"
    path.write_text(GOOD)
    return path


def reaching(steps=5):
    """The hand comes from 1 m to the block in equal steps, then both rise by 0.1 m a step."""
    x = np.linspace(1, 0, steps)
    come = np.stack([x, 0 * x, 0 * x], 1)
    rise = np.stack([np.zeros(3), np.zeros(3), [0.1, 0.2, 0.3]], 1)
    return np.concatenate([come, rise]), np.concatenate([0 * come, rise])


def test_costs_follow_their_formula_stage_by_stage(spec):
    force = [0, 2, 2, 0, 0, 0, 0, 0]
    first, second = Stages(spec).costs(episode(*reaching(), force=force))
    assert (first.name, first.begin, first.end, first.done) == ("reach", 0, 4, True)
    assert first.cost["path"] == pytest.approx(0.01 * 2 * (1 + 0.75 + 0.5 + 0.25 - 0.5))
    assert first.cost["collision"] == pytest.approx(0.01 * 2)
    assert (second.name, second.begin, second.end, second.done) == ("lift", 4, 5, True)
    assert second.cost["grasp"] == 0


def test_the_score_is_the_published_sum(spec):
    hand, block = reaching()
    log_prob = np.full((8, 1), -1.5, np.float32)
    log_prob[0] = -50  # the published code cuts probabilities at 0.05
    trajectory, labeler = episode(hand, block, success=True, log_prob=log_prob), Stages(spec)
    own = 7 * -1.5 + np.log(0.05)
    wanted = 0.01 * own + 0.01 * labeler.external(trajectory) + 2.0
    assert labeler.scores([trajectory])[0] == pytest.approx(wanted)
    assert PUBLISHED == {"self": 0.01, "external": 0.01, "success": 2.0}
    assert 0 < labeler.external(trajectory) < 1


def test_a_stage_that_did_not_end_is_not_free(spec):
    hand, block = reaching()
    near, far = Stages(spec).external(episode(hand[:4], block[:4])), Stages(spec).external(episode(hand, block))
    assert near < far * np.exp(-1.9), "neither of its two stages ended"
    last = Stages(spec).costs(episode(hand[:4], block[:4]))[-1]
    assert not last.reached and not last.done and last.begin == last.end == 4


def test_success_may_come_from_the_stages_where_nothing_reports_it(spec):
    done, not_done = episode(*reaching()), episode(*(a[:4] for a in reaching()))
    assert Stages(spec, success="stages").label([done], [not_done]).tolist() == [1.0]
    assert Stages(spec, success="stages", weights={"external": 0.0}).label([done], [done]).tolist() == [0.5]


def test_each_objective_minds_what_it_is_about(spec):
    hand, block = reaching()
    slow = (
        np.concatenate([np.repeat(hand[:5], 4, axis=0), hand[5:]]),
        np.concatenate([np.repeat(block[:5], 4, 0), block[5:]]),
    )
    rough, detour = episode(hand, block, force=[0, 9, 9, 0, 0, 0, 0, 0]), episode(*slow)
    wanted = {"safety": 0.0, "efficiency": 1.0}
    for objective, answer in wanted.items():
        assert Stages(spec, objective=objective).label([rough], [detour]).tolist() == [answer], objective
    assert set(wanted) | {"completion"} == set(OBJECTIVES)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("distance: [hand, block], below", "distance: [hand, blok], below", 11, "unknown quantity 'blok'. Did you mean 'block'"),
        ("kind: path", "kind: pth", 13, "pth"),
        ("until:\n      all", "untill:\n      all", 16, "'untill', wanted one of name, until, costs. Did you mean 'until'"),
        ("value: force", "value: hand", 14, "hand has 3 columns"),
        ("value: hand.z", "value: hand.w", 21, "hand.x"),
        ("hand: [0, 3]", "hand: [3, 3]", 3, "second number above the first"),
        ("of: block, offset: [0, 0, 0.1]", "of: block, offset: [0, 0.1]", 8, "wanted 3 as in block"),
        ("of: hand, at", "of: hnd, at", 7, "unknown quantity 'hnd'"),
        ("name: lift", "name: reach", 15, "twice"),
        (", above: 0.05 }", " }", 18, "without below or above"),
        ("axes: z", "axes: q", 18, "axes|q"),
        ("distance: [hand, block], weight: 2", "weight: 2", 13, "both or neither"),
        ("  block: [3, 6]", "  block: [3, 6]\n  hand: [1, 4]", 5, "twice"),
        ("[hand, block], below: 0.1 }", "[hand, block], below: 0.1", 12, "no YAML"),
        ("weight: 2", "weight: -2", 13, "-2"),
        ("name: reach\n", "name: reach\n    on: 3\n    then: 4\n", 12, "wanted one of name, until, costs"),
    ],
)  # fmt: skip
def test_the_validator_names_the_wrong_line(old, new, line, message):
    assert old in GOOD
    with pytest.raises(InputError, match=message) as caught:
        parse(GOOD.replace(old, new, 1), "mine.yaml")
    assert f"mine.yaml:{line}:" in str(caught.value), str(caught.value)


def test_a_missing_file_and_an_unknown_task_say_what_to_do(tmp_path, spec):
    with pytest.raises(InputError, match="cannot be read"):
        Stages(tmp_path / "no.yaml")
    with pytest.raises(InputError, match="did you mean 'drawer-open'"):
        ready_spec("drawer-opne-v3")
    with pytest.raises(InputError, match="objective"):
        Stages(spec, objective="speed")
    with pytest.raises(InputError, match="weights"):
        Stages(spec, weights={"succes": 1.0})
    recorded = episode(*reaching(), log_prob=np.zeros((8, 1), np.float32))
    with pytest.raises(InputError, match="log_prob"):
        Stages(spec).label([episode(*reaching())], [recorded])
    bare = Trajectory(recorded.observation, recorded.action, recorded.reward, recorded.success)
    with pytest.raises(InputError, match="contact"):
        Stages(spec).costs(bare)


def test_the_schema_is_itself_valid_and_a_model_may_answer_in_json(tmp_path):
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema())
    import yaml

    path = tmp_path / "line.json"
    path.write_text(json.dumps(yaml.safe_load(GOOD)))
    assert read(path).stages == parse(GOOD, "x").stages


def test_at_least_eight_meta_world_tasks_are_ready():
    assert len(ready()) >= 8
    assert all(ready_spec(task).task == f"{task}-v3" for task in ready())


def played(env, seed, fault):
    observation, _ = env.reset(seed=seed)
    actor, rows = Scripted(env, fault, np.random.default_rng(seed)), []
    for _ in range(env.horizon):
        action = actor.act(observation)
        after, reward, _, _, info = env.step(action)
        rows.append((observation, action, reward, info["success"]))
        observation = after
    seen, action, reward, success = (np.array(column) for column in zip(*rows, strict=True))
    return Trajectory(seen, action, reward.astype(np.float32), success.astype(bool), env.task, seed)


@pytest.mark.slow
@pytest.mark.parametrize("task", ready())
def test_stage_costs_tell_good_from_faulty_scripted_experts(task):
    env, seeds = MetaWorld(task, horizon=150), range(3)
    careful, faults = Imperfection(action_noise=0.05), (
        Imperfection(wrong_goal=0.2), Imperfection(stop=1.0), Imperfection(bias=1.0, action_noise=0.1),
    )  # fmt: skip
    blind = Stages(weights={"success": 0.0, "self": 0.0})
    good = [played(env, seed, careful) for seed in seeds]
    bad = [played(env, seed, fault) for seed in seeds for fault in faults]
    first = [good[i // len(faults)] for i in range(len(bad))]
    failed = np.array([not t.succeeded for t in bad])
    answers = blind.label(first, bad)
    assert all(t.succeeded for t in good)
    assert answers[failed].mean() >= 0.9, "costs alone know a failure from a success"
    assert all(stage.done for t in good for stage in blind.costs(t)), "a success passes every stage"
    assert (Stages().label(first, bad)[failed] == 1).all()
