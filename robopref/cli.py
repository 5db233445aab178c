"""The `robopref` command: which verb does what. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from robopref import __version__
from robopref.arrays import InputError
from robopref.cli_errors import WRONG_REQUEST, did_you_mean, explain
from robopref.cli_help import VERBS, help_of, overview


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and leave with its exit code: 0 done, 2 wrong request, 1 failure, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (for example `head`) has seen enough; Python must not complain again while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the one place where every failure gets its exit code
        code, lines = explain(error)
        if debug:
            traceback.print_exception(error)
        print(
            "\n".join(f"robopref: {line}" if i == 0 else f"  {line}" for i, line in enumerate(lines)), file=sys.stderr
        )
    raise SystemExit(code)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview() if len(words) < 2 or words[1] not in VERBS else help_of(words[1]), end="")
        return 0 if words else WRONG_REQUEST
    if words[0] in ("--version", "version"):
        print(f"robopref {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS) or f" Known: {', '.join(VERBS)}."
        raise InputError(f"unknown verb {verb!r}.{hint}\nsee `robopref --help`")
    if "--help" in rest or "-h" in rest:
        print(help_of(verb), end="")
        return 0
    return _HANDLERS.get(verb, lambda words: _run(verb, words))(rest)


def _run(verb: str, words: list[str]) -> int:
    """A verb that takes Hydra overrides."""
    multirun = any(word in ("--multirun", "-m") for word in words)
    overrides = [word for word in words if word not in ("--multirun", "-m")]
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            wanted = f"{word.lstrip('-')}=VALUE" if word.startswith("-") else "key=value"
            raise InputError(f"{verb}: got {word!r}, wanted {wanted}\nsee `robopref {verb} --help`")
    from robopref.run import main as run

    run(verb, overrides, multirun)
    return 0


def _report(words: list[str]) -> int:
    """The report of a finished run needs only its folder; with any other key it is a stage like the others."""
    folders, options = _split("report", words)
    if len(folders) + ("out" in options) != 1 or set(options) - {"out"}:
        if folders:
            raise InputError(f"report: got {' '.join(words)!r}, wanted one run folder, or key=value only.")
        return _run("report", words)
    from robopref.stages.report import report

    print(report(Path(folders[0] if folders else options["out"])))
    return 0


def _compare(words: list[str]) -> int:
    folders, options = _split("compare", words, known=("out",))
    if not folders:
        raise InputError("compare: got no run folder, wanted at least one.\nsee `robopref compare --help`")
    from robopref.compare import compare

    print(compare([Path(folder) for folder in folders], Path(options.get("out", "compare"))), end="")
    return 0


def _convert(words: list[str]) -> int:
    if "--to" in words[:-1]:
        at = words.index("--to")
        words = [*words[:at], f"to={words[at + 1]}", *words[at + 2 :]]
    paths, options = _split("convert", words, known=("to",))
    if len(paths) != 2 or "to" not in options:
        raise InputError(
            f"convert: got {' '.join(words)!r}, wanted SRC DST --to FORMAT.\nsee `robopref convert --help`"
        )
    from robopref.data.convert import convert

    print(convert(Path(paths[0]), Path(paths[1]), options["to"]))
    return 0


def _validate(words: list[str]) -> int:
    paths, _ = _split("validate", words, known=())
    if len(paths) != 1:
        raise InputError(f"validate: got {len(paths)} folders, wanted one.\nsee `robopref validate --help`")
    if not Path(paths[0]).exists():
        raise InputError(f"validate: {paths[0]} does not exist.")
    if paths[0].endswith((".yaml", ".yml", ".json")):
        from robopref.data.stage_spec import read

        print(f"{paths[0]}: a valid specification of {len(read(paths[0]).stages)} stages")
        return 0
    from robopref.data.validate import validate

    problems = validate(Path(paths[0]))
    print("\n".join(problems) if problems else f"{paths[0]}: nothing is wrong")
    return WRONG_REQUEST if problems else 0


def _doctor(words: list[str]) -> int:
    if set(words) - {"--json"}:
        raise InputError(f"doctor: got {' '.join(words)!r}, wanted nothing or --json.")
    from robopref.doctor import examine, show

    findings = examine()
    if words:
        print(json.dumps(findings, indent=2))
    else:
        show(findings)
    return 0


def _bench(words: list[str]) -> int:
    names, options = _split("bench", words, known=("quick", "out", "resume", "parts"))
    from robopref.bench import available, bench

    if not names:
        print("\n".join(available()))
        return 0
    quick, resume = (options.get(name, "false").lower() for name in ("quick", "resume"))
    if len(names) != 1 or not {quick, resume} <= {"true", "false"}:
        raise InputError(
            "bench: wanted one NAME, quick=true or quick=false, and the same of resume.\nsee `robopref bench --help`"
        )
    only = [part for part in options.get("parts", "").strip("[]").split(",") if part]
    return bench(names[0], quick == "true", Path(options["out"]) if "out" in options else None, resume == "true", only)


def _plan_memory(words: list[str]) -> int:
    from robopref.plan_memory import main as plan

    print(plan(_split("plan-memory", words)[1]), end="")
    return 0


def _annotate(words: list[str]) -> int:
    from robopref.labelling.serve import annotate

    return annotate(words)


def _serve(words: list[str]) -> int:
    known = ("checkpoint", "host", "port", "device", "precision", "compile")
    _, options = _split("serve", words, (*known, "reference", "reward", "candidates", "budget"))
    # The robot's package is an edge: nothing here imports it, it is entered by name.
    return int(import_module("robopref.hardware.policy_server").main(options))


def _deploy(words: list[str]) -> int:
    return int(import_module("robopref.hardware.deploy").main(words))


def _record(words: list[str]) -> int:
    paths, options = _split("record", words, known=("fps",))
    if len(paths) != 2 or not options.get("fps", "15").isdigit():
        raise InputError("record: wanted EPISODES DATASET [fps=15]\nsee `robopref record --help`")
    assemble = import_module("robopref.hardware.recorder").assemble
    print(f"{paths[1]}: {assemble(Path(paths[0]), Path(paths[1]), int(options.get('fps', '15')))} episodes")
    return 0


def _split(verb: str, words: list[str], known: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """(plain words, key=value words); with `known`, other keys and any dashed option are refused."""
    plain = [word for word in words if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    for word in [*options, *(word for word in plain if word.startswith("-"))] if known is not None else ():
        if word not in (known or ()):
            hint = did_you_mean(word.lstrip("-"), known or ()) or f" See `robopref {verb} --help`."
            raise InputError(f"{verb}: unknown key {word!r}.{hint}")
    return plain, options


_HANDLERS: dict[str, Callable[[list[str]], int]] = {
    "report": _report,
    "compare": _compare,
    "convert": _convert,
    "validate": _validate,
    "doctor": _doctor,
    "bench": _bench,
    "plan-memory": _plan_memory,
    "annotate": _annotate,
    "serve": _serve,
    "deploy": _deploy,
    "record": _record,
}

if __name__ == "__main__":
    main()
