"""One stage by itself, behind the verbs of the same name: each takes the configuration and a result folder and says what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.checkpoint import load
from robopref.data.files import atomic_folder, free, write_json
from robopref.data.store import TrajectoryStore
from robopref.stages import pretrain as pretraining
from robopref.stages.align import align_policy
from robopref.stages.collect import collect_policy, mixture, scripted, write
from robopref.stages.environments import roll
from robopref.stages.evaluate import outcomes, summary
from robopref.stages.evidence import check_compared, labelled_pairs, read_rounds
from robopref.stages.label import ask, ask_lists
from robopref.stages.origin import provenance
from robopref.stages.pictures import drawn, load_episodes, pictures_of, settings_of
from robopref.stages.ranking import from_answers
from robopref.stages.reward_quality import reward_of_store
from robopref.stages.units import write_log

Config = dict[str, Any]


def collect(config: Config, out: Path) -> str:
    """Episodes of a policy folder (checkpoint=DIR) or of the scripted mixture, as a store; `rounds.replicas` from each reset."""
    count, seed = 96 if config["episodes"] is None else config["episodes"], config["seed"]
    free(out)
    replicas, states, cameras = config["rounds"]["replicas"], config["record_sim_state"], tuple(config["cameras"])
    if count > 10_000 * replicas:
        raise InputError(
            f"episodes: got {count}, wanted at most 10000 resets of {replicas} replicas. Use further seeds."
        )
    resets = [10_000 * seed + i // replicas for i in range(count)]
    if config["checkpoint"]:
        seeds = [config["rounds"]["first_reset"] + reset for reset in resets]
        checkpoint, expert = Path(config["checkpoint"]), config["record_expert"]
        load(checkpoint)
        log_prob = config["record_log_prob"]
        collect_policy(
            checkpoint, config["env"], seeds, seed, out, config["workers"], expert, states, cameras, log_prob
        )
    else:
        behaviours = mixture(config["imperfections"]["good"] | config["imperfections"]["faulty"], count)
        render = settings_of(config["env"], cameras)
        made = scripted(config["env"], resets, behaviours, seed, config["workers"], states, cameras)
        write(out, made, "store episodes", render=render)
    return f"{count} episodes in {out}"


def label(config: Config, out: Path) -> str:
    """Ask `pairs` questions about a store, in ranked lists where `list_budget` says so; the answers go into its sidecar."""
    store, count = _store(config, "label"), config["pairs"]
    if config["list_budget"]:
        trajectories, budget = store.load(), config["list_budget"]
        asked, new = ask_lists(
            store, trajectories, config["labeler"], count, budget, config["seed"], config["labeler_name"]
        )
        return f"{new} answers, implied by lists from {asked} questions, stored in {store.root / 'meta/preferences'}"
    new = ask(store, store.load(), config["labeler"], count, config["seed"], config["labeler_name"])
    known = f"; {count - new} were stored already (another seed asks others)" if new < count else ""
    return f"{new} answers stored in {store.root / 'meta/preferences'}{known}"


def reward(config: Config, out: Path) -> str:
    """A reward model from the answers about a store, judged on held-out episodes; `pairs=N` trains on at most N answers."""
    free(out)
    most = config["pairs"] if "pairs" in config["given"] else None
    return reward_of_store(config, _store(config, "reward"), out, most)


def pretrain(config: Config, out: Path) -> str:
    """A policy cloned from all episodes of a store."""
    free(out)
    store = _store(config, "pretrain")
    trajectories = load_episodes(store, pictures_of(config["policy"]))
    with atomic_folder(out) as partial:
        clone, origin = config["base"]["clone"], provenance(config, trajectories)
        pretraining.pretrain(
            config["policy"], trajectories, clone, config["seed"], partial, "base", origin, drawn(store)
        )
    return f"policy in {out / 'policy'}"


def align(config: Config, out: Path) -> str:
    """Trajectory DPO of a policy folder on the answered pairs of a store, anchored on their winners."""
    if not config["checkpoint"]:
        raise InputError("align: got no checkpoint, wanted checkpoint=DIR, the policy that is to be aligned.")
    free(out)
    store = _store(config, "align")
    trajectories, answers, _ = read_rounds([store.root], load(config["checkpoint"]).spec.pictures)
    pairs = labelled_pairs(answers, ties=True)
    check_compared(trajectories, pairs)
    ranking = from_answers(pairs, len(trajectories), config["rounds"]["held_out"], config["seed"])
    logs: list[dict[str, Any]] = []
    with atomic_folder(out) as partial:
        found, stopped = align_policy(
            config, Path(config["checkpoint"]), trajectories, ranking, 1.0, partial, logs, "aligned", 0
        )
        write_log(partial / "log.jsonl", logs)
    unguarded = (
        "" if len(ranking.held_out) else f"; {len(answers)} answers are too few to hold some out, so the guard was off"
    )
    return f"policy in {out / 'policy'} {found or ''}{' ' + stopped if stopped else ''}{unguarded}"


def evaluate(config: Config, out: Path) -> str:
    """Success of a policy folder on held-out resets, with a 95% interval, as metrics.json."""
    if not config["checkpoint"]:
        raise InputError("evaluate: got no checkpoint, wanted checkpoint=DIR, a policy folder.")
    checkpoint, count = Path(config["checkpoint"]), config["episodes"]
    count = config["evaluation"]["episodes"] if count is None else count
    load(checkpoint)
    if (out / "metrics.json").exists() or (out / "config.yaml").exists():
        raise InputError(f"evaluate: out={out} holds results already, wanted a new folder. Choose another out=DIR.")
    begin = config["evaluation"]["first_reset"] + 1000 * config["seed"]
    seeds = list(range(begin, begin + count))
    table: dict[str, Any] = {"seeds": seeds, "success": {}, "return": {}, "length": {}}
    for key, values in outcomes(roll(checkpoint, config["env"], seeds, config["seed"], config["workers"])).items():
        table[key]["policy"] = values
    policies, tests = summary(table)
    metrics = {
        "task": config["task"],
        "seed": config["seed"],
        "labels_asked": 0,
        "episodes_judged": 0,
        "policies": policies,
        "tests": tests,
        "seconds": {},
    }
    write_json(out / "evaluation" / "outcomes.json", table)
    write_json(out / "metrics.json", metrics)
    one = policies["policy"]
    return f"success {one['success_rate']:.1%} [{one['ci95'][0]:.1%}, {one['ci95'][1]:.1%}], n={count}, in {out / 'metrics.json'}"


def report(config: Config, out: Path) -> str:
    """The report of a finished run folder."""
    from robopref.stages.report import report as write_report

    return str(write_report(out))


def _store(config: Config, verb: str) -> TrajectoryStore:
    if not config["dataset"]:
        raise InputError(
            f"{verb}: got no dataset, wanted dataset=DIR, a trajectory store. Make one with `robopref collect`."
        )
    return TrajectoryStore(config["dataset"])
