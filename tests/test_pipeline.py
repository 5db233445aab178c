"""One real run end to end on the one-second task: all stages, determinism, kill -9 and resume, bad requests."""

import json
import shutil
from itertools import pairwise

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from story import TINY, timeless

from robopref.arrays import InputError
from robopref.data.store import TrajectoryStore
from robopref.run import compose, main
from robopref.stages.pipeline import seconds
from robopref.stages.pretrain import next_levels
from robopref.stages.videos import film
from robopref.statistics import wilson


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("pipeline") / "run"
    main("run", [*TINY, f"out={run}"])
    return run


def test_a_run_leaves_metrics_for_every_policy(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["policies"]) == {"base", "cloned", "filtered", "plain_dpo", "aligned_no_pairs", "aligned"}
    assert metrics["labels_asked"] == 12 and metrics["task"] == "point-mass" and metrics["episodes_judged"] == 24
    for one in metrics["policies"].values():
        assert one["episodes"] == 16
        assert 0 <= one["ci95"][0] <= one["success_rate"] <= one["ci95"][1] <= 1
    assert {(t["a"], t["b"]) for t in metrics["tests"]} >= {("aligned", "base"), ("aligned", "aligned_no_pairs")}
    choice = metrics["choice"]
    best = max(choice["predicted"].values())
    assert choice["chosen"] == "base" if choice["doubt"] else choice["predicted"][choice["chosen"]] == best
    assert (choice["doubt"] in metrics["notes"]) == bool(choice["doubt"])
    outcomes = json.loads((finished / "evaluation" / "outcomes.json").read_text())
    assert sum(outcomes["success"]["aligned"]) / 16 == metrics["policies"]["aligned"]["success_rate"]


NUMBER, COUNT = {"type": "number"}, {"type": "integer", "minimum": 0}
SHARE, WORD = {"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "minLength": 1}


POSITIVE = {"type": "number", "exclusiveMinimum": 0}


def record(**fields):
    """Schema of an object that holds all of these."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def interval(of):
    return {"type": "array", "items": of, "minItems": 2, "maxItems": 2}


POLICY = record(success_rate=SHARE, ci95=interval(SHARE), episodes=COUNT, **{"return": NUMBER, "length": NUMBER})
TEST = record(a=WORD, b=WORD, difference=NUMBER, ci95=interval(NUMBER), p_value=SHARE)
METRICS = record(
    task=WORD, seed=COUNT, labels_asked=COUNT, episodes_judged=COUNT, tests={"type": "array", "items": TEST, "minItems": 9},
    policies={"type": "object", "additionalProperties": POLICY},
    seconds=record(**dict.fromkeys(("collect", "pretrain", "align", "baselines", "evaluate"), POSITIVE)),
)  # fmt: skip


def test_every_promised_field_of_the_metrics_is_there_and_fits_the_outcomes(finished):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    metrics = json.loads((finished / "metrics.json").read_text(), parse_constant=refuse)
    jsonschema.validate(metrics, METRICS)
    outcomes = json.loads((finished / "evaluation" / "outcomes.json").read_text())
    for name, one in metrics["policies"].items():
        assert one["return"] == pytest.approx(np.mean(outcomes["return"][name]))
        assert one["length"] == pytest.approx(np.mean(outcomes["length"][name])) and 1 <= one["length"] <= 40
        assert one["ci95"] == pytest.approx(wilson(sum(outcomes["success"][name]), 16))
    for one in metrics["tests"]:
        apart = metrics["policies"][one["a"]]["success_rate"] - metrics["policies"][one["b"]]["success_rate"]
        assert one["difference"] == pytest.approx(apart)
        assert one["ci95"][0] <= one["difference"] <= one["ci95"][1]


def test_what_the_gate_rolled_out_of_the_base_is_work_of_the_alignment(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before, judged = seconds(tmp_path / "run"), list((tmp_path / "run" / "judged").rglob("done.json"))
    for path in judged:
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 1000}))
    after = seconds(tmp_path / "run")
    assert judged and after.pop("align") > 1000 * len(judged) > before.pop("align") and after == before


def test_a_run_leaves_a_report_that_stands_alone(finished):
    page = (finished / "report.html").read_text()
    assert "aligned" in page and "<video" in page and 'src="http' not in page


def test_a_run_without_films_can_be_asked_for(finished, tmp_path):
    config = compose([*TINY, "evaluation.videos=0"])
    assert film(config, {"base": str(finished / "arms/cloned/policy")}, tmp_path / "videos")["films"] == 0


def test_no_two_sets_of_resets_meet_at_any_allowed_seed():
    for seed in (0, 1, 57, 99):
        config = compose(["experiment=align_metaworld", f"seed={seed}", "rounds.count=9", "rounds.resets=1000"])
        rounds = config["rounds"]["first_reset"] + 10_000 * seed
        evaluation = config["evaluation"]["first_reset"] + 1000 * seed
        sets = {
            "demonstrations": range(10_000 * seed, 10_000 * seed + 2 * config["base"]["demonstrations"]),
            "rollouts": range(rounds, rounds + 10 * 1000),
            "base": range(config["base"]["first_reset"], config["base"]["first_reset"] + config["base"]["episodes"]),
            "gate": range(config["gate"]["first_reset"], config["gate"]["first_reset"] + config["gate"]["episodes"]),
            "evaluation": range(evaluation, evaluation + config["evaluation"]["episodes"]),
        }
        ordered = sorted(sets.values(), key=lambda one: one.start)
        assert all(left.stop <= right.start for left, right in pairwise(ordered))


def test_a_seed_whose_resets_would_meet_others_is_refused():
    with pytest.raises(InputError, match="0 to 99"):
        compose(["seed=100"])


def test_the_search_for_a_base_never_tries_a_level_twice():
    tried = []
    for bracket in ((0.0, 1.0), (1 / 3, 2 / 3), (1 / 3, 2 / 3), (1 / 3, 2 / 3)):
        levels = next_levels(bracket, tried)
        assert len(set(levels)) == 2 and not set(levels) & set(tried) and all(0 < one < 1 for one in levels)
        tried += levels


def test_a_wrong_task_does_not_claim_the_folder(tmp_path):
    with pytest.raises(InputError):
        main("run", [*[t for t in TINY if not t.startswith("task=")], "task=point-moss", f"out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_a_moved_run_can_be_reported_again(finished, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    main("run", [*TINY, "stages=[report]", f"out={moved}"])
    assert (moved / "report.html").exists() and not (moved / "moved").exists()


def test_the_same_command_gives_the_same_metrics(finished, tmp_path):
    main("run", [*TINY, f"out={tmp_path / 'again'}"])
    assert timeless(tmp_path / "again") == timeless(finished)


def test_training_sees_the_answers_and_neither_reward_nor_success(finished, tmp_path):
    """With other rewards and successes in every store, all that was trained from them comes out the same to the bit."""
    run = tmp_path / "blinded"
    shutil.copytree(finished, run)
    stores = [run / "demonstrations" / "store", *run.rglob("rollouts/store")]
    assert len(stores) == 4, "demonstrations, the shared first round, and a second one of each arm with rounds"
    for store in stores:
        before = TrajectoryStore(store).read(0)
        blind(store)
        after = TrajectoryStore(store).read(0)
        assert (after.success != before.success).all() and not np.isclose(after.reward, before.reward).any()
    for made in ("base", "evaluation", "videos", "strips", "arms/arms.json"):
        shutil.rmtree(run / made) if (run / made).is_dir() else (run / made).unlink()
    for done in run.glob("arms/*"):
        if (done / "done.json").exists():
            shutil.rmtree(done)
        for part in (*done.glob("round-*/align"), *done.glob("round-*/gate"), done / "chosen"):
            shutil.rmtree(part, ignore_errors=True)
    main("run", [*TINY, "stages=[collect,pretrain,align,evaluate,report]", f"out={run}"])
    trained = [path.relative_to(finished) for path in finished.rglob("model.safetensors")]
    assert len(trained) >= 10
    for path in trained:
        assert (run / path).read_bytes() == (finished / path).read_bytes(), path
    assert timeless(run)["policies"] == timeless(finished)["policies"]


def blind(store):
    """Overwrite what the simulator said in a store: rewards by noise, successes by their opposite."""
    draw = np.random.default_rng(0)
    for path in store.glob("data/*/*.parquet"):
        file = pq.ParquetFile(path)
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
        with pq.ParquetWriter(path, file.schema_arrow) as writer:
            for group in groups:
                for name in ("next.reward", "next.success"):
                    at, told = group.schema.get_field_index(name), group[name].to_numpy()
                    other = draw.normal(size=len(told)) if name == "next.reward" else ~told.astype(bool)
                    field = group.schema.field(at)
                    group = group.set_column(at, field, pa.array(other).cast(field.type))
                writer.write_table(group)


def test_the_number_of_workers_changes_nothing(finished, tmp_path):
    main("run", [*[t for t in TINY if t != "workers=1"], "workers=2", f"out={tmp_path / 'two'}"])
    assert timeless(tmp_path / "two") == timeless(finished)


def test_a_folder_of_another_run_is_refused_and_left_alone(finished):
    before = (finished / "metrics.json").read_bytes()
    with pytest.raises(InputError, match="differs in pairs"):
        main("run", [*[t for t in TINY if t != "pairs=12"], "pairs=13", f"out={finished}"])
    assert (finished / "metrics.json").read_bytes() == before


def test_stages_run_one_by_one(finished, tmp_path, capsys):
    env = ["env=point_mass", "task=point-mass", "workers=1"]
    main("collect", [*env, f"checkpoint={finished / 'arms/cloned/policy'}", "episodes=12", f"out={tmp_path / 'store'}"])
    main("label", [*env, f"dataset={tmp_path / 'store'}", "pairs=6", "labeler=return"])
    main("reward", [*env, f"dataset={tmp_path / 'store'}", f"out={tmp_path / 'reward'}", "reward_fit.steps=20"])
    main("pretrain", [*env, f"dataset={tmp_path / 'store'}", f"out={tmp_path / 'bc'}", "base.clone.steps=20"])
    main("align", [
        *env, f"dataset={tmp_path / 'store'}", f"checkpoint={tmp_path / 'bc/policy'}", f"out={tmp_path / 'dpo'}", "align.steps=20",
    ])  # fmt: skip
    main("evaluate", [*env, f"checkpoint={tmp_path / 'dpo/policy'}", "episodes=8", f"out={tmp_path / 'eval'}"])
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["policies"]["policy"]["episodes"] == 8
    assert "n=8" in capsys.readouterr().out


def test_a_policy_for_other_dimensions_is_refused(finished, tmp_path):
    with pytest.raises(InputError, match="wanted"):
        main(
            "evaluate",
            ["task=reach", "workers=1", f"checkpoint={finished / 'arms/cloned/policy'}", f"out={tmp_path / 'e'}"],
        )


@pytest.mark.parametrize("verb", ["label", "reward", "pretrain", "align", "evaluate"])
def test_a_missing_input_is_named(verb, tmp_path):
    with pytest.raises(InputError, match=r"wanted (dataset|checkpoint)=DIR"):
        main(verb, [f"out={tmp_path / 'x'}"])
