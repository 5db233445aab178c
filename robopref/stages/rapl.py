"""Rewards from films: a rater compares them, answers train an encoder, and held-out films of this and another arm say what it is worth.

`robopref run experiment=rapl seed=S out=DIR` (Tian et al. 2024). The hidden preference score of an episode is the environment's return; it
answers the scripted rater's questions and judges in the end, and no model reads it. Every piece is a resumable unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.files import read_json
from robopref.data.picture_cache import cached
from robopref.data.store import TrajectoryStore
from robopref.data.windows import segments
from robopref.episodes import Episode
from robopref.learners.aligned import Triplets, borrow, features_of, learn_pairs, learn_triplets, time_contrast
from robopref.policies.scripted import Imperfection
from robopref.stages import rapl_metrics
from robopref.stages.collect import scripted_episode, write
from robopref.stages.environments import environments
from robopref.stages.folders import in_order
from robopref.stages.origin import provenance
from robopref.stages.pictures import settings_of
from robopref.stages.units import thin, unit, write_log
from robopref.types import Segments

Config = dict[str, Any]
FOLDERS = {
    "collect": ("films",),
    "label": ("labels",),
    "learn": ("rewards",),
    "evaluate": ("figures", "metrics.json"),
    "report": ("report.html",),
}
PREFERRED = 5000
"""Resets of the demonstrations begin this far behind those of the other films."""
HELD_OUT_OTHER = 500
"""Resets of the other arm begin this far behind those of the held-out films."""


def run(config: Config, out: Path, command: str) -> None:
    """Run the wanted stages of the experiment in a folder; done pieces are kept, so a killed run continues."""
    _checked(config)
    steps = {
        "collect": lambda: collect(config, out),
        "label": lambda: label(config, out),
        "learn": lambda: learn(config, out),
        "evaluate": lambda: rapl_metrics.measure(config, rewards_of(out), sets(config, out), out, command),
        "report": lambda: rapl_metrics.report(out, command),
    }
    in_order(config, out, FOLDERS, steps)


def _checked(config: Config) -> None:
    settings = config["rapl"]
    if settings["preferred"] not in settings["behaviours"]:
        raise InputError(
            f"rapl.preferred: got {settings['preferred']!r}, wanted one of the behaviours: {', '.join(settings['behaviours'])}."
        )
    least = 2 * len(settings["behaviours"])
    if settings["films"] < least or min(settings["held_out"], settings["other"]) < 3 or settings["demonstrations"] < 1:
        raise InputError(
            f"rapl: got films={settings['films']}, demonstrations={settings['demonstrations']}, held_out={settings['held_out']}, "
            f"other={settings['other']}, wanted at least {least} films (two of each behaviour), a demonstration, and 3 held-out films of each arm."
        )


def collect(config: Config, out: Path) -> None:
    """Films to learn from, demonstrations of what is preferred, held-out films, and held-out ones of another arm: behaviours by turns, each from a reset of its own."""
    settings, seed = config["rapl"], config["seed"]
    held = config["evaluation"]["first_reset"] + 1000 * seed
    other = {**config["env"], **settings["other_env"]}
    every = list(settings["behaviours"])
    for name, env, first, count, names in (
        ("train", config["env"], 10_000 * seed, settings["films"], every),
        ("preferred", config["env"], 10_000 * seed + PREFERRED, settings["demonstrations"], [settings["preferred"]]),
        ("held_out", config["env"], held, settings["held_out"], every),
        ("other", other, held + HELD_OUT_OTHER, settings["other"], every),
    ):

        def make(
            partial: Path, env: Config = env, first: int = first, count: int = count, names: list[str] = names
        ) -> dict[str, Any]:
            made = _filmed(config, env, range(first, first + count), names)
            write(partial / "store", made, "store films", count, settings_of(env, (settings["camera"],)))
            return {"films": count, "success": sum(t.succeeded for t in made) / count}

        unit(out / "films" / name, make)


def _filmed(config: Config, env_config: Config, seeds: range, names: list[str]) -> list[Trajectory]:
    """Scripted episodes, one per reset, of the named behaviours by turns; `care` of a behaviour goes to the reset, the rest says how the expert errs."""
    env, settings = environments(env_config, 1)[0], config["rapl"]
    made = []
    for number, seed in enumerate(seeds):
        name = names[number % len(names)]
        how = dict(settings["behaviours"][name])
        care = {"care": how.pop("care", 1.0)}
        errs = Imperfection(**how)
        made.append(
            scripted_episode(
                env, Episode(seed), errs, name, config["seed"], cameras=(settings["camera"],), options=care
            )
        )
    return made


def sets(config: Config, out: Path) -> dict[str, list[Trajectory]]:
    """Films with their pictures: preferred, train, held_out, other."""
    found = {}
    for name in ("preferred", "train", "held_out", "other"):
        folder = out / "films" / name / "store"
        if not folder.exists():
            raise InputError(f"rapl: got no {folder}, wanted what `collect` makes. Run that stage first.")
        found[name] = cached(TrajectoryStore(folder), (config["rapl"]["camera"],))
    return found


def scores(films: list[Trajectory]) -> np.ndarray:
    """Hidden preference score of each film, (N,): for the scripted rater and for judging."""
    return np.array([float(t.reward.sum()) for t in films])


def questions(films: list[Trajectory], preferred: int, count: int, seed: int) -> list[dict[str, Any]]:
    """`count` answered questions about films, the first `preferred` of which are demonstrations: which of two others is more like one of them?

    The scripted rater goes by the hidden score: the film whose score is closer to the demonstration's is more like it.
    """
    rng, score = np.random.default_rng([seed, 43]), scores(films)
    good, rest = range(preferred), range(preferred, len(films))
    asked: dict[tuple[int, frozenset[int]], dict[str, Any]] = {}
    if count > len(good) * len(rest) * (len(rest) - 1) // 2:
        raise InputError(
            f"pairs: got {count} questions, wanted fewer or more films: {len(films)} give not as many. Raise rapl.films."
        )
    while len(asked) < count:
        anchor = int(rng.choice(good))
        first, second = (int(i) for i in rng.choice(rest, size=2, replace=False))
        near, far = (abs(score[i] - score[anchor]) for i in (first, second))
        answer = 0.5 if near == far else float(near < far)
        asked.setdefault(
            (anchor, frozenset((first, second))),
            {"anchor": anchor, "first": first, "second": second, "prob_first": answer},
        )
    return list(asked.values())


def label(config: Config, out: Path) -> None:
    """Ask the scripted rater `pairs` questions about triplets of training films."""

    def make(_: Path) -> dict[str, Any]:
        found = sets(config, out)
        films = [*found["preferred"], *found["train"]]
        return {"triplets": questions(films, len(found["preferred"]), config["pairs"], config["seed"])}

    unit(out / "labels", make)


def learn(config: Config, out: Path) -> None:
    """Time contrast on unlabelled films; then the aligned reward, and the plain one, from the same answers and the same start."""
    settings, seed = config["rapl"], config["seed"]
    found = sets(config, out)
    films = [*found["preferred"], *found["train"]]
    every = segments(films, cameras=(settings["camera"],))
    good = torch.arange(len(found["preferred"]))
    rows = read_json(out / "labels" / "done.json")["triplets"]
    sides = torch.tensor([[row[k] for row in rows] for k in ("anchor", "first", "second")])
    answers = Triplets(sides, torch.tensor([row["prob_first"] for row in rows]))

    def origin(kind: str) -> dict[str, Any]:
        return provenance(config, films, answers=0 if kind == "untaught" else len(answers))

    def start(partial: Path) -> dict[str, Any]:
        model, generator = _model(config, "aligned"), torch.Generator().manual_seed(seed)
        logs = thin(time_contrast(model, every, generator=generator, **settings["contrast"]), 10, stage="contrast")
        model.prefer(every[good])
        save(model.eval(), partial / "model", origin("untaught"))
        write_log(partial / "log.jsonl", logs)
        return {"found": logs[-1]["contrast/found"] if logs else None}

    def aligned(partial: Path) -> dict[str, Any]:
        model = load(out / "rewards" / "untaught" / "model")
        return _taught(model, every, answers, settings["teach"], seed, partial, good, origin("aligned"))

    def pictured(partial: Path) -> dict[str, Any]:
        model = _model(config, "pictured")
        borrow(model, load(out / "rewards" / "untaught" / "model"), every)
        return _taught(model, every, answers, settings["teach_pictured"], seed, partial, None, origin("pictured"))

    for name, make in (("untaught", start), ("aligned", aligned), ("pictured", pictured)):
        unit(out / "rewards" / name, make)


def _taught(
    model: Any, every: Segments, answers: Triplets, settings: Config, seed: int, partial: Path, good: torch.Tensor | None,
    origin: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Train the head of a reward on the answers, give it its preferred films (places `good`) where it wants some, save it."""
    generator = torch.Generator().manual_seed(seed)
    learner = learn_pairs if good is None else learn_triplets
    made = learner(model, features_of(model, every), every.mask, answers, generator=generator, **settings)
    logs = thin(made, 10, stage="teach")
    if good is not None:
        model.prefer(every[good])
    save(model.eval(), partial / "model", origin)
    write_log(partial / "log.jsonl", logs)
    return {"loss": logs[-1]["reward/loss"] if logs else None}


def _model(config: Config, kind: str) -> Any:
    from hydra.utils import instantiate

    torch.manual_seed(config["seed"])
    settings = config["rapl"]
    return instantiate(settings[kind], camera=settings["camera"], size=config["env"]["image_size"])


def rewards_of(out: Path) -> dict[str, Any]:
    """The learned rewards of a run, by name."""
    return {name: load(out / "rewards" / name / "model") for name in ("aligned", "pictured", "untaught")}
