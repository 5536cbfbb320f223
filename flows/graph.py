"""The stages of the main job: what each one reads, writes and is decided by. `dvc.yaml` is made from this.

`python -m flows.graph` writes dvc.yaml; a test keeps the two equal. DVC owns the order, Prefect walks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.paths import CHAMPION_INPUT, REPOSITORY, Artifacts

A = Artifacts()


@dataclass(frozen=True)
class Stage:
    """One node: `code` are the packages whose files decide the result, `sections` those of params.yaml."""

    name: str
    says: str
    code: tuple[str, ...]
    deps: tuple[Path, ...]
    outs: tuple[Path, ...]
    sections: tuple[str, ...]
    reads_data: bool = False


_FLOOR = ("features",)
_CORE = ("features", "models")

STAGES: tuple[Stage, ...] = (
    Stage(
        "import",
        "any source into canonical tables",
        _FLOOR,
        (),
        (A.tables, A.import_report),
        ("data", "simulator"),
        True,
    ),
    Stage(
        "validate",
        "stop bad data before anything learns from it",
        _FLOOR,
        (A.tables, CHAMPION_INPUT),
        (A.validation,),
        ("validation", "data"),
        True,
    ),
    Stage(
        "clean",
        "retries, bots, sessions, quarantine",
        _FLOOR,
        (A.tables, A.validation),
        (A.clean,),
        ("cleaning", "data"),
    ),
    Stage(
        "history",
        "users' histories and the point-in-time join",
        _CORE,
        (A.clean,),
        (A.features,),
        ("history", "split", "train"),
    ),
    Stage("train_sequence", "the sequence network", _CORE, (A.clean, A.features), (A.sequence,), ("train",)),
    Stage(
        "train_ranker",
        "tune, refit up to the cut, refresh for shipping",
        _CORE,
        (A.clean, A.features, A.sequence),
        (A.model,),
        ("train",),
    ),
    Stage(
        "policy",
        "a page policy from impressions, proved off-policy",
        _CORE,
        (A.clean, A.features, A.sequence, A.model, CHAMPION_INPUT),
        (A.policy,),
        ("policy", "serving", "train"),
    ),
    Stage(
        "evaluate",
        "every model on the same users of the gate slice",
        _CORE,
        (A.clean, A.features, A.model, A.policy, CHAMPION_INPUT),
        (A.evaluation,),
        ("gate", "data"),
    ),
    Stage("gate", "may it meet shoppers?", _CORE, (A.evaluation, A.policy), (A.verdict,), ("gate",)),
    Stage(
        "package",
        "the Bento and its manifest",
        ("features", "models", "serving"),
        # The manifest names the data and the parameters, all of them.
        (A.import_report, A.validation, A.clean, A.features, A.policy, A.evaluation, A.verdict, Path("params.yaml")),
        (A.package,),
        ("serving",),
    ),
    Stage(
        "report",
        "the reviewer's page",
        ("features", "models", "serving"),
        (
            A.import_report, A.validation, A.clean, A.features, A.sequence, A.model, A.policy, A.evaluation, A.verdict,
            A.package,
        ),
        (A.report,),
        (),
    ),
)  # fmt: skip
BY_NAME = {stage.name: stage for stage in STAGES}


def dvc_document() -> dict[str, Any]:
    """The content of dvc.yaml; the code of flows/ that carries a stage out is a dependency of every stage."""
    stages: dict[str, Any] = {}
    for stage in STAGES:
        deps = [*stage.code, "flows/stages", *(path.as_posix() for path in stage.deps)]
        if stage.name == "report":
            deps.append("flows/report")
        if stage.reads_data:
            deps.append("${data.path}")
        entry: dict[str, Any] = {
            "desc": stage.says,
            "cmd": f"python -m flows.stages {stage.name}",
            "deps": sorted(deps),
        }
        if stage.sections:
            entry["params"] = list(stage.sections)
        entry["outs"] = [path.as_posix() for path in stage.outs]
        stages[stage.name] = entry
    return {"stages": stages}


def dvc_text() -> str:
    """dvc.yaml as text."""
    head = "# Made from flows/graph.py by `python -m flows.graph`; a test keeps the two equal.\n"
    return head + str(yaml.safe_dump(dvc_document(), sort_keys=False, width=110))


if __name__ == "__main__":
    (REPOSITORY / "dvc.yaml").write_text(dvc_text())
