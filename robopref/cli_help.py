"""What the `robopref` command says about itself: its verbs, and the help text of each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Verb:
    """One verb: what it is for, how it is called, and what else one should know."""

    summary: str
    usage: str
    details: str
    hydra: bool = True
    """Whether the words after the verb are Hydra overrides."""


_KEYS = """\
keys of every run (lists are written [a,b]):
  out=DIR           folder of the run; the same command on the same folder resumes it
  task=NAME         for example drawer-open; an unknown name lists near ones
  seed=N            same command, same seed, same machine: same metrics.json
  stages=[a,b]      do only these stages again
  dataset=DIR  episodes=N  pairs=DIR  checkpoint=DIR  source=[a,b]  target=NAME
  GROUP=PRESET      choose a preset (below); GROUP.KEY=VALUE changes one knob of it
"""


def _stage(summary: str, details: str) -> Verb:
    return Verb(summary, "[key=value ...] [--multirun]", details)


VERBS: dict[str, Verb] = {
    "quickstart": _stage(
        "the whole story on Meta-World: offline, CPU, minutes; ends with a report",
        "The same as `robopref run experiment=quickstart`.\n\n  robopref quickstart out=runs/quickstart seed=0",
    ),
    "run": _stage(
        "a pipeline: run experiment=NAME",
        "  robopref run experiment=align_metaworld task=drawer-open seed=1 out=runs/drawer\n"
        "  robopref run experiment=align_metaworld task=drawer-open,door-open seed=1,2 --multirun",
    ),
    "collect": _stage("one stage: trajectories from experts, random actions or a policy", "Writes OUT/dataset."),
    "label": _stage("one stage: ask a teacher about pairs", "Every question is counted in labels_asked."),
    "reward": _stage(
        "one stage: learn a reward from the answers, judged on held-out episodes",
        "Choose the learner with reward=PRESET. Writes a model folder with metrics.json (held_out: accuracy, ece, brier)\n"
        "and calibration.png. pairs=N trains on at most N answers; label_flips=0.3 turns that share of training labels round.\n\n"
        "  robopref reward dataset=DIR reward=gaussian label_flips=0.3 out=runs/reward",
    ),
    "pretrain": _stage("one stage: clone a policy from trajectories", "Choose the head with policy=PRESET."),
    "align": _stage("one stage: fine-tune the policy on the pairs", "Choose the loss with loss=PRESET."),
    "evaluate": _stage(
        "one stage: success on held-out resets, with intervals",
        "  robopref evaluate checkpoint=DIR task=drawer-open episodes=100",
    ),
    "report": Verb(
        "one self-contained report.html of a finished run",
        "RUN | [key=value ...]",
        "Reads what the run left behind and writes RUN/report.html; nothing is trained or evaluated.\n\n"
        "  robopref report runs/quickstart",
    ),
    "compare": Verb(
        "paired statistics over runs: difference, 95% interval, p-value, plot",
        "RUN [RUN ...] [out=DIR]",
        "RUN is a run folder, or a folder of run folders (as --multirun makes).\n"
        "Writes compare.json, compare.md and compare.png into DIR (default: compare).\n"
        "Tasks are shown one by one and as their mean, each task counting the same.\n\n"
        "  robopref compare multirun/2026-01-31/10-00-00 out=runs/compared",
        hydra=False,
    ),
    "convert": Verb(
        "a dataset from one format into another",
        "SRC DST --to FORMAT",
        "SRC is left as it is; an unknown FORMAT lists the known ones.",
        hydra=False,
    ),
    "validate": Verb(
        "what is wrong with a dataset or a stage specification, where, and how to mend it",
        "DIR | FILE.yaml",
        "Exit code 0 when nothing is wrong, 2 when something is.",
        hydra=False,
    ),
    "annotate": Verb(
        "the labelling page: people compare episodes in a browser",
        "DATASET [--port P] [--no-browser] [key=value ...]",
        "Prints the address once the page is ready. Answers are kept in DATASET/meta/preferences/answers.sqlite.\n\n"
        "  pairs=N             answers wanted (200)         mode=pairs|ranking|best_worst|rating|flag  clips=4\n"
        "  question=TEXT       label_model=free|return|regret  lang=en  training_id=ID  reasons=[a,b]\n"
        "  strategy=epig|infogain|disagreement|volume|random   what is asked next; a fifth is always random\n"
        "  annotators=[a,b]    a link for each person; required with host=ADDRESS (127.0.0.1)  tls_cert= tls_key= hosts=[a]\n"
        "  overlap=K           people per question (1)      repeats=0.1  screen=true  gold=N   quality checks\n"
        "  segment=STEPS       windows instead of episodes  cameras=[a,b]  size=256  speed=1.0  minimum=400  prefetch=3\n"
        "  export=true         only write the answers to the sidecar (`labeler=people dataset=DATASET` does so itself)\n"
        "  restore=true        only take answers back from the sidecar, for a database that was lost\n\n"
        "  robopref collect task=drawer-open out=data && robopref annotate data",
        hydra=False,
    ),
    "serve": Verb(
        "a policy on this machine (GPU if there is one) for robots elsewhere",
        "checkpoint=DIR [host=H] [port=N] [device=cpu|cuda] [precision=float32|bf16] [compile=true]",
        "Websocket and msgpack, openpi's wire protocol; /healthz and /metrics over HTTP. Loopback unless host= is given,\n"
        "and then the environment variable ROBOPREF_TOKEN must hold the token that clients show.\n"
        "reference=DIR (the policy it was aligned against) or reward=DIR (a reward model that looks at actions): every reply is the best\n"
        "of candidates=8 chunks by that judge, or of fewer where budget=0.1 seconds, the deadline or a busy machine leaves no time.\n\n"
        "  robopref serve checkpoint=runs/drawer/arms/aligned/policy port=8000",
        hydra=False,
    ),
    "deploy": Verb(
        "the control loop on an arm, with recorder and operator's page",
        "bridge=ws://HOST:PORT policy=ws://HOST:PORT [out=DIR] [seconds=N] | --demo",
        "keys: arm=fr3|panda  robot=reach|metaworld robot.KEY=VALUE (what the policy sees and does; env.robot of its training)\n"
        "      space=joint_delta|joint_absolute|joint_velocity|ee_delta scale=0.05 gripper=true (short for robot.KEY)\n"
        "      goal=/TOPIC|X:Y:Z objects=/TOPIC,... (poses that the arm cannot measure) task=NAME (in the recording)\n"
        "      hz=15 mode=real_time|ensemble|asynchronous|synchronous episode=8 sentence='...'\n"
        "      hash=FINGERPRINT (take chunks of this policy only)  ca=FILE (the certificate of a wss:// bridge)\n"
        "      driver=franka_ros2|franka_ros|crisp (its hand, states and recovery)  dialect=ros2|ros1\n"
        "      replicas=3 (as many episodes from each reset: the arm drives to its start before each, and they compare better)\n"
        "      auto_arm=false (every motion begins with a person's Re-arm on the page)\n"
        "The guard runs on the robot's side: python -m robopref.hardware.ros_node --address ARM. See docs/hardware.md.\n"
        "Leaves OUT/dataset, which `robopref annotate` opens and `robopref align` takes (dataset=OUT/dataset checkpoint=DIR).\n"
        "All of it at once, rollouts on the arm, answers, alignment, deployment: robopref run experiment=robot_in_the_loop.\n\n"
        "  robopref deploy --demo                 everything on this machine: simulator, bridge, server, agent, three faults",
        hydra=False,
    ),
    "record": Verb(
        "the finished episodes of a deployment as a dataset",
        "EPISODES DATASET [fps=15]",
        "`deploy` does this when it ends; after a kill, this makes a dataset of what was finished.\n\n"
        "  robopref record runs/deploy/episodes runs/deploy/dataset",
        hydra=False,
    ),
    "doctor": Verb(
        "what this machine can do, in under 5 seconds",
        "[--json]",
        "Python, torch, GPU, OpenGL, video, cores, memory, disk, ROS, and which extras are installed.",
        hydra=False,
    ),
    "plan-memory": Verb(
        "the GPU memory that fine-tuning a policy needs, before it starts",
        "policy=NAME [policy.KEY=VALUE ...] | checkpoint=DIR  [batch=112] [rank=32] [observation=39] [action=4] [gpu=GB]",
        "A table: all weights or adapters, with a second copy as reference or without, bfloat16, gradient checkpointing, the optimiser in\n"
        "the processor's memory. Counted on the model's own shapes; no weight is read. batch: chunks scored in one step. checkpoint may be\n"
        "a folder of this package or one of OpenVLA or lerobot.\n\n"
        "  robopref plan-memory policy=vla_flow policy.width=512 batch=112 gpu=24",
        hydra=False,
    ),
    "bench": Verb(
        "a benchmark against a named peer, in one run, as a ratio",
        "[NAME] [quick=true] [out=DIR [resume=true]] [parts=[PART,...]]",
        "Without NAME: the list of benchmarks. With out=DIR: writes DIR/bench.json, a benchmark in parts after each of them;\n"
        "resume=true goes on where an earlier run of the same command stopped; parts= measures these alone (bench labelling, hardware).",
        hydra=False,
    ),
}

_OPTIONS = """\
options:
  --multirun, -m    one run for every combination: seed=1,2 task=a,b
  --debug           show the traceback of an error
  --help, -h        help; also `robopref VERB --help`
  --version         version

exit codes: 0 done, 2 the request was wrong, 1 anything else, 130 interrupted
"""


def overview() -> str:
    """The text of `robopref --help`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "robopref: preferences in, better robot out, and you can believe the number.\n\n"
        f"usage: robopref VERB [key=value ...]\n\nverbs:\n{verbs}\n\n{_OPTIONS}\n"
        "Start with: robopref quickstart out=runs/quickstart\n"
    )


def help_of(name: str) -> str:
    """The text of `robopref NAME --help`."""
    verb = VERBS[name]
    text = f"usage: robopref {name} {verb.usage}\n\n{verb.summary}\n\n{verb.details}\n"
    if verb.hydra and name != "report":
        text += f"\n{_KEYS}\npresets:\n{_presets()}"
    return text


def _presets() -> str:
    """One line per group of presets on disk; names only, so that no configuration library is loaded."""
    lines = []
    for group in sorted(files("robopref.conf").iterdir(), key=lambda entry: entry.name):
        if group.is_dir():
            names = sorted(
                entry.name.removesuffix(".yaml") for entry in group.iterdir() if entry.name.endswith(".yaml")
            )
            if names:
                lines.append(f"  {group.name + '=':12} {', '.join(names)}\n")
    return "".join(lines)
