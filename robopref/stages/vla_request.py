"""What `experiment=vla` is asked for: tasks, phrasings, the base and how many questions each part gets, checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.checkpoint import load
from robopref.data.phrasings import Phrasings, read_phrasings
from robopref.pictures import PictureSpec
from robopref.rollout import check_fit
from robopref.stages.environments import dims_of, environments
from robopref.stages.pictures import pictures_of

Config = dict[str, Any]


def checked(config: Config) -> dict[str, Phrasings]:
    """The tasks and their phrasings. Raises `InputError` for a policy that reads none, other numbers, and tasks that do not exist or fit."""
    words, pictures = senses_of(config)
    if not words or not pictures.cameras:
        raise InputError(
            "policy: got one that does not look and read, wanted policy=vla_flow or policy=vla_tokens (or another with `eyes` and `words`),\n"
            "or checkpoint=DIR of one that does."
        )
    for key, only in (("rank_by", "reward"), ("pairing", "best_worst")):
        if config[key] != only:
            raise InputError(
                f"{key}: got {config[key]}, wanted {only}: every task of experiment=vla ranks by a reward of its own."
            )
    if config["objectives"]["others"]:
        raise InputError("objectives.others: got some, wanted none: experiment=vla weighs no further objectives.")
    if not 0 <= config["vla"]["faulty"] <= 1:
        raise InputError(f"vla.faulty: got {config['vla']['faulty']}, wanted a share from 0 to 1.")
    unknown = [name for name in config["vla"]["baselines"] if name != "filtered"]
    if unknown:
        raise InputError(f"vla.baselines: got {', '.join(unknown)}, wanted [filtered] or [].")
    phrasings = read_phrasings(config["language"], words, config["vla"]["tasks"])
    least = len(phrasings) * parts_of(config)
    if config["pairs"] < least:
        raise InputError(
            f"pairs: got {config['pairs']}, wanted at least {least}: one question a task and round, and one about its demonstrations "
            "where they are judged.\nAsk more, or take fewer tasks."
        )
    widths = {(d.observation, d.action) for d in (dims_of(env_of(config, task)) for task in phrasings)}
    if len(widths) > 1:
        raise InputError(
            f"language: got tasks of widths {sorted(widths)}, wanted one: a single policy acts in all of them."
        )
    if config["checkpoint"]:
        spec = load(Path(config["checkpoint"])).spec
        for task in phrasings:
            check_fit(spec, environments(env_of(config, task), 1)[0])
    return phrasings


def senses_of(config: Config) -> tuple[int, PictureSpec]:
    """How many words the base may read, and which pictures it sees: the policy of `checkpoint` where one is given, else the one to be cloned."""
    if config["checkpoint"]:
        spec = load(Path(config["checkpoint"])).spec
        return spec.words, spec.pictures
    return config["policy"].get("words", 0), pictures_of(config["policy"])


def judged(config: Config) -> bool:
    """Whether demonstrations are judged; those of a given base are not known."""
    return bool(config["vla"]["judge_demonstrations"]) and not config.get("checkpoint")


def parts_of(config: Config) -> int:
    """Into how many parts the questions are divided: the rounds, and before them the demonstrations where they are judged."""
    return int(config["rounds"]["count"]) + judged(config)


def questions(config: Config, part: int, at: int, tasks: int) -> int:
    """How many questions one part asks about one task. `at`: which of the tasks it is."""
    total = config["pairs"] // parts_of(config) + (part < config["pairs"] % parts_of(config))
    return total // tasks + (at < total % tasks)


def env_of(config: Config, task: str) -> Config:
    """The environment of one of the tasks."""
    return {**config["env"], "task": task}
