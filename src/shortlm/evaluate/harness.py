"""Tasks by lm-evaluation-harness, as it comes from PyPI: its tasks, its model wrapper, its metrics.

What is ours: local files first (so that the 14,000 stock tasks are only indexed when one is asked for), errors that say
what to do offline, a batch size that fits, and the result of every question, so that two models can be compared on
the same questions.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import traceback
from collections.abc import Callable, Generator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from shortlm.embedded import tasks_path
from shortlm.errors import ModelError, TextError, is_out_of_memory
from shortlm.evaluate.harness_log import only_what_matters
from shortlm.evaluate.harness_results import Found, means, task_results
from shortlm.evaluate.local_tasks import write_local_tasks
from shortlm.evaluate.task_names import SETS, Wanted, wanted
from shortlm.leftovers import scratch_folder
from shortlm.model import OpenModel, free_memory, vocabulary
from shortlm.paths import user_path
from shortlm.recipe import EvalSettings

LOGITS_SHARE = 16  # on a CPU, at most this part of the free memory is taken by one batch's logits
MOST_ON_CPU = 16  # larger batches only add padding


def run_tasks(opened: OpenModel, settings: EvalSettings) -> Found:
    """The tasks that `settings` name, with their means. Empty if they name none. Raises what `loaded_tasks` does."""
    with loaded_tasks(opened, settings) as tasks:
        return tasks()


@contextlib.contextmanager
def loaded_tasks(opened: OpenModel, settings: EvalSettings) -> Generator[Callable[[], Found], None, None]:
    """Find the tasks and their data now, run them when what is yielded is called.

    Raises TextError for a task or data set that can't be found, ModelError for a model that can't do it.
    """
    asked = wanted(settings.tasks, opened.model.can_generate())
    if not asked.names:
        yield lambda: Found([], [])
        return
    _refuse_unable(opened)
    with scratch_folder("tasks") as folder:
        with only_what_matters():
            manager = _manager(asked.names, settings, folder)
            files = _task_files(settings)
            known = {task for name in asked.names for task in _members(manager.task_index, name)}
            _refuse_unused(files, known | set(asked.names))
            loaded = {name: _loaded(manager, name, files) for name in asked.names}
        leaves = {name: [leaf for item in items for leaf in _leaves(item)] for name, items in loaded.items()}
        everyone = [leaf for tasks in leaves.values() for leaf in tasks]
        _refuse_unfit(opened, everyone, settings)
        metrics = {leaf.task_name: m for name, m in asked.metrics.items() for leaf in leaves[name]}
        _refuse_unknown_metrics(everyone, metrics)
        items = [item for found in loaded.values() for item in found]
        yield lambda: _evaluated(opened, manager, items, replace(asked, metrics=metrics), settings)


def check_tasks(settings: EvalSettings) -> None:
    """Raise TextError for tasks that don't exist or whose data is not there, before hours of other work.

    Of those that are only asked of models that can write (a ? behind them) the data is looked for later.
    """
    asked = wanted(settings.tasks)
    if asked.names:
        _installed()
        with scratch_folder("tasks") as folder, only_what_matters():
            manager, files = _manager(asked.names, settings, folder), _task_files(settings)
            for name in wanted(settings.tasks, can_write=False).names:
                _loaded(manager, name, files)


def _refuse_unfit(opened: OpenModel, leaves: list[Any], settings: EvalSettings) -> None:
    writing = next((leaf.task_name for leaf in leaves if leaf.OUTPUT_TYPE == "generate_until"), None)
    if writing and not opened.model.can_generate():
        raise ModelError(f"{opened.facts.name}: can't generate text, and task '{writing}' needs that; leave it out")
    fixed = next((leaf.task_name for leaf in leaves if leaf.get_config("num_fewshot") == 0), None)
    if settings.shots and fixed:
        raise TextError(
            f"--shots {settings.shots}: task '{fixed}' is always asked without examples; leave out one of them"
        )


def _refuse_unknown_metrics(leaves: list[Any], metrics: dict[str, str]) -> None:
    for leaf in leaves:
        known, metric = list(leaf.aggregation()), metrics.get(leaf.task_name, "").partition(",")[0]
        if metric and metric not in known:
            raise TextError(f"task '{leaf.task_name}' has no metric '{metric}'; it has: {', '.join(known)}")


def _refuse_unable(opened: OpenModel) -> None:
    if opened.tokenizer is None:
        raise ModelError(f"{opened.facts.name}: tasks need a tokenizer; put its files into the folder, or --tasks none")
    if opened.disk is not None:
        raise ModelError(f"{opened.facts.name}: tasks need the whole model in memory; free some, or --tasks none")
    _installed()


def _installed() -> None:
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise TextError(
            "tasks need lm-evaluation-harness (pip install 'shortlm[eval]'); or measure without: --tasks none"
        ) from error


def _evaluated(opened: OpenModel, manager: Any, loaded: list[Any], asked: Wanted, settings: EvalSettings) -> Found:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    tokenizer = copy.deepcopy(opened.tokenizer)  # the harness gives it a padding token
    size, examples = settings.task_batch or _batch_size(opened), settings.shots
    try:
        with only_what_matters():
            model = HFLM(pretrained=opened.model, tokenizer=tokenizer, batch_size=size)
            results: Any = simple_evaluate(
                model=model, tasks=loaded, task_manager=manager, num_fewshot=examples, limit=settings.limit or None,
                log_samples=True,
            )  # fmt: skip
    except Exception as error:  # of tasks' own code too
        if is_out_of_memory(error):
            raise
        raise TextError(
            f"{opened.facts.name}: the harness gave up on {', '.join(asked.names)} ({_reason(error)}); "
            f"is a question longer than the model's context of {opened.context or 'unknown length'}?"
        ) from error
    found = task_results(results, asked.metrics)
    return Found(found, means(results, found, asked))


def _reason(error: Exception) -> str:
    """Its text; of an assertion without one, the line that failed."""
    line = traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__
    return " ".join(str(error).split())[:200] or line


def _refuse_unused(files: dict[str, str], tasks: set[str]) -> None:
    unused = next((name for name in files if name not in tasks), None)
    if unused:
        raise TextError(f"--local {unused}: no such task is asked; asked are: {', '.join(sorted(tasks))}")


def _members(index: dict[str, Any], name: str) -> set[str]:
    """The names of all tasks of a group or a tag, its inner groups among them."""
    entry = index.get(name)
    listed = (entry.cfg or {}).get("task") if entry else None
    inner = listed if isinstance(listed, list) else entry.tags if entry and entry.cfg is None else ()
    names = {m if isinstance(m, str) else m.get("task", m.get("group", "")) for m in inner}
    return {name} | {task for member in names for task in _members(index, member)}


def _task_files(settings: EvalSettings) -> dict[str, str]:
    """Local files that are not for texts."""
    texts = {text.data_name for text in settings.texts}
    return {name: file for name, file in settings.local_files().items() if name not in texts}


def _leaves(item: Any) -> list[Any]:
    return item.get_all_tasks() if hasattr(item, "get_all_tasks") else [item]


def _batch_size(opened: OpenModel) -> int | str:
    """The harness's own search on an accelerator; on a CPU, which would swap before it fails, what fits well."""
    if opened.device.type != "cpu":
        return "auto"
    logits = (opened.context or 2048) * vocabulary(opened.model.config) * 4
    return max(1, min(MOST_ON_CPU, free_memory(opened.device) // LOGITS_SHARE // logits))


def _manager(names: list[str], settings: EvalSettings, folder: Path) -> Any:
    """An index of the tasks: of local folders if all are there, else of the stock ones too."""
    from lm_eval.tasks import TaskManager

    files = _task_files(settings)
    for task, file in files.items():  # before the index of all stock tasks is read
        if not user_path(file).is_file():
            raise TextError(f"--local {task}={file}: no such file; a .jsonl, .json or .tsv file of questions is needed")
    folders: list[str | Path] = [tasks_path(), *(_folder(path) for path in settings.task_path)]
    if files:
        write_local_tasks(files, _stock().task_index, folder)
        folders.append(folder)
    own = TaskManager(include_path=folders, include_defaults=False)
    if all(_complete(own.task_index, name) for name in names):
        return own
    manager = TaskManager(include_path=folders)
    for name in names:
        if name not in manager.task_index:
            raise TextError(_unknown(name, manager.all_tasks))
    return manager


@functools.cache
def _stock() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _folder(path: str) -> Path:
    folder = user_path(path)
    if not folder.is_dir():
        raise TextError(f"--task-path {path}: no such folder; it should hold task files (.yaml) of the harness's form")
    return folder


def _complete(index: dict[str, Any], name: str) -> bool:
    """Whether a task, or a group with all its members, is in the index. A tag may have stock members too."""
    if name not in index or index[name].cfg is None:
        return False
    members = index[name].cfg.get("task")
    if not isinstance(members, list):
        return True
    return all(_complete(index, m if isinstance(m, str) else m.get("task", "")) for m in members)


def _unknown(name: str, known: list[str]) -> str:
    near = get_close_matches(name, [*known, *SETS], n=3, cutoff=0.6)
    hint = (
        f"did you mean {', '.join(near)}?" if near else "give a task of lm-evaluation-harness, or your own: --task-path"
    )
    return f"task '{name}' is unknown; {hint}"


def _loaded(manager: Any, name: str, files: dict[str, str]) -> list[Any]:
    """The task or group with its data."""
    try:
        loaded = manager.load([name])
    except Exception as error:  # whatever the hub, the data set's builder or a task's own code raises
        raise TextError(f"task '{name}': {_cause(manager, name, error, files)}") from error
    return [loaded["groups"][name]] if name in loaded["groups"] else list(loaded["tasks"].values())


def _cause(manager: Any, name: str, error: Exception, files: dict[str, str]) -> str:
    """What went wrong and the way out: a package, a file, or leaving the task out."""
    reason = " ".join(str(error).split("\n")[0].split())[:160].rstrip(".")
    if isinstance(error, ImportError):
        return f"needs a package that is not here ({reason}); install it, or leave the task out"
    if name in files:
        return f"{files[name]} is not of a form that it can read ({reason}); docs/evaluation.md names the forms"
    if not isinstance(error, OSError):  # of which the hub's and the network's errors are kinds
        return f"can't be loaded ({reason}); is its task file right?"
    config = getattr(manager.task_index.get(name), "cfg", None) or {}
    own = "class" in config or "custom_dataset" in config
    hint = f"leave out {name}" if own else f"give a local file: --local {name}=FILE.jsonl"
    return f"its data can't be had ({reason}); without network {hint}"
