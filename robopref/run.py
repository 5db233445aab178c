"""The Hydra entry: composes a configuration, then runs a pipeline or one stage of it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robopref import ranges
from robopref.arrays import InputError

PIPELINES = ("run", "quickstart")
SHARED = ("pretrain", "align")
"""Verbs that several processes of a launcher do together (see `processes`)."""


def main(verb: str, overrides: list[str], multirun: bool = False) -> None:
    """Run a verb of the command line with Hydra overrides; `multirun` sweeps lists of values through Hydra's launcher."""
    if verb == "quickstart" and not any(o.startswith("experiment=") for o in overrides):
        overrides = ["experiment=quickstart", *overrides]
    if verb == "run" and not any(o.startswith("experiment=") for o in overrides):
        raise InputError("run: got no experiment, wanted experiment=NAME. Known: " + ", ".join(experiments()) + ".")
    if multirun:
        _sweep(verb, overrides)
    else:
        _job(verb, compose(overrides), overrides)


def experiments() -> list[str]:
    """Names of the experiment presets."""
    from importlib.resources import files

    return sorted(
        p.name.removesuffix(".yaml")
        for p in files("robopref.conf").joinpath("experiment").iterdir()
        if p.name.endswith(".yaml")
    )


def compose(overrides: list[str]) -> dict[str, Any]:
    """The resolved configuration of overrides, as plain data."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("robopref.conf", version_base="1.3"):
        config = hydra_compose("config", overrides)
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    return _checked({str(k): v for k, v in resolved.items()} | _names(overrides))


def _names(overrides: list[str]) -> dict[str, str]:
    """Short names of presets, which a resolved configuration no longer knows."""
    chosen = dict(o.split("=", 1) for o in overrides if "=" in o)
    experiment = chosen.get("experiment", "")
    return {"experiment": experiment, "labeler_name": chosen.get("labeler", "success")}


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Cross-field checks before anything heavy is imported."""
    ranges.check(config)
    if str(config["labeler"].get("_target_", "")).endswith(".People"):
        config["labeler_name"] = "people"  # an experiment may have chosen it
        if not config["dataset"] and not config["people"]["ask"]:
            raise InputError(
                "labeler=people: got no dataset, wanted dataset=DIR, a store that people compared (`robopref annotate DIR`).\n"
                "Or let every round ask them: experiment=human_in_the_loop."
            )
    if config["labeler"].get("criterion") == "regret" and not config["record_expert"]:
        raise InputError(
            "labeler=regret: got record_expert=false, wanted record_expert=true: it compares with the expert's actions."
        )
    return config


def _sweep(verb: str, overrides: list[str]) -> None:
    """Every combination of comma-separated values, through the configured Hydra launcher; `out` becomes the parent folder."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    for combination in combinations(overrides):
        compose(combination)  # a wrong one is refused before the first has run
    # Only what varies names a job's folder: the same sweep over other stages finds its folders again.
    pairs = [o.split("=", 1) for o in overrides if "=" in o]
    swept = {key for key, value in pairs if re.search(r",(?![^\[]*\])|^(range|choice|glob|interval)\(", value)} - {
        "stages"
    }

    @hydra.main(config_path="pkg://robopref.conf", config_name="config", version_base="1.3")
    def job(config: DictConfig) -> None:
        own = list(HydraConfig.get().overrides.task)
        resolved = OmegaConf.to_container(config, resolve=True)
        assert isinstance(resolved, dict)
        plain = _checked({str(k): v for k, v in resolved.items()} | _names(own))
        varied = [o for o in own if o.split("=", 1)[0] in swept]
        parent = plain["out"] or f"runs/{plain['experiment'] or verb}"
        plain["out"] = str(Path(parent) / (re.sub(r"[^\w.=-]+", "_", ",".join(varied))[:200] or "run"))
        _job(verb, plain, own)

    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    parent = dict(pairs).get("out", "runs")
    settings = ["output_subdir=null", f"sweep.dir={parent}", "sweep.subdir=."]
    sys.argv = ["robopref", "--multirun", *overrides, *(f"hydra.{one}" for one in settings)]
    sys.argv += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise what a job raised; Hydra would print it and end the process
    try:
        job()
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def combinations(overrides: list[str]) -> list[list[str]]:
    """The overrides of every job of a sweep, split as Hydra's own sweeper does; none for another sweeper, which chooses as it goes."""
    from hydra import initialize_config_module
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if any(o.startswith("hydra/sweeper=") for o in overrides):
        return []
    with initialize_config_module("robopref.conf", version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        batches = BasicSweeper.split_arguments(parser.parse_overrides(overrides), None)
    return [job for batch in batches for job in batch]


def _job(verb: str, config: dict[str, Any], overrides: list[str]) -> None:
    from robopref import processes
    from robopref.stages import dial, human_labels, label_models, label_noise, pearl, pipeline, rapl, single, vla
    from robopref.stages.parallel import single_thread

    single_thread()
    if processes.count() > 1 and verb not in SHARED:
        raise InputError(
            f"{verb}: got {processes.count()} processes by a launcher, wanted one: it also simulates, and several would do the same twice.\n"
            f"Launch {' or '.join(SHARED)}; here, use workers=N."
        )
    out = config["out"] or f"runs/{config['experiment'] or verb}/{config['task']}-seed{config['seed']}"
    config["out"] = str(out)
    command = config["command"] = " ".join(["robopref", verb, *overrides])
    if verb in PIPELINES:
        runs = {
            "align": pipeline.run, "human_labels": human_labels.run, "pearl": pearl.run, "label_models": label_models.run,
            "label_noise": label_noise.run, "vla": vla.run, "rapl": rapl.run, "dial": dial.run,
        }  # fmt: skip
        runs[config["pipeline"]](config, Path(out), command)
        return
    config["given"] = [o.split("=", 1)[0].lstrip("+") for o in overrides if "=" in o]
    stage: Callable[[dict[str, Any], Path], str] = getattr(single, verb)
    if processes.rank() == 0:
        print(stage(config, Path(out)))
        return
    with tempfile.TemporaryDirectory() as nowhere:  # the first process writes; this one helped to compute
        stage(config, Path(nowhere) / "out")
