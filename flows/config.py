"""One typed configuration: the defaults of every owner, overridden by params.yaml, every key checked.

Choices. Defaults stand once, in the frozen dataclass beside the code that uses them; params.yaml names only what a run
changes, keyed by stage section; an unknown key is an error that names the key and what was meant. The core never sees
`Params`, only its own dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from features.cleaning import CleaningParams
from features.errors import UsageError
from features.history import HistoryParams
from features.split import SplitParams
from features.validation import ValidationParams
from flows.loop_params import LoopParams
from flows.sources import ONLINE_RETAIL
from models.gate import GateParams
from models.policy.recipe import PolicyParams
from models.recipe import TrainParams
from models.simulator.params import SimulatorParams
from serving.params import ServingParams


class DataParams(BaseModel):
    """Which data a run reads; `until` is a UTC date, inclusive.

    `as_of` is the day on which the data was loaded (a run with a directory writes it down): what lies beyond its end,
    or beyond the moment of the validation while that day lasts, is in the future. Without it nothing is said of future
    and freshness: the shipped data ends in 2011.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: str = ONLINE_RETAIL
    path: str = "data/online_retail.parquet"
    name: str = ONLINE_RETAIL
    until: str | None = None
    as_of: str | None = None
    engine: str = "duckdb"


class RunParams(BaseModel):
    """How a run is carried out: nothing in here decides a byte."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage_timeout_s: int = 1800
    retries: int = 2
    retry_delay_s: float = 2.0
    free_disk_mb: int = 1500
    approval: Literal["not required", "required"] = "not required"
    self_approval: bool = False  # may the one who started a run approve it?
    heartbeat_s: float = 10.0  # a run that is under way says so this often
    lease_s: float = 60.0  # one that did not say so for this long is dead


class MonitorParams(BaseModel):
    """Limits of `homeranker monitor`; a distance counts only from `min_rows` rows on each side."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    days: float = 7.0  # of the live log
    psi: float = 0.25  # over its noise
    ks: float = 0.15
    ctr_ratio: float = 0.5  # clicks a slot now against the model's first live day
    weight_error: float = 0.05  # of the mean weight from 1, beyond four standard errors
    store_age_days: float = 1.0  # the online store behind what the champion was trained on
    min_rows: int = 500


class Params(BaseModel):
    """All sections of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: DataParams = DataParams()
    validation: ValidationParams = ValidationParams()
    cleaning: CleaningParams = CleaningParams()
    history: HistoryParams = HistoryParams()
    split: SplitParams = SplitParams()
    train: TrainParams = TrainParams()
    policy: PolicyParams = PolicyParams()
    gate: GateParams = GateParams()
    serving: ServingParams = ServingParams()
    monitor: MonitorParams = MonitorParams()
    simulator: SimulatorParams = SimulatorParams()
    loop: LoopParams = LoopParams()
    run: RunParams = Field(default=RunParams())


SECTIONS = tuple(Params.model_fields)


def load(path: Path) -> Params:
    """Read params.yaml; UsageError names the first wrong key with the nearest right one, or the wrong value."""
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error})") from error
    return parse(values, str(path))


def parse(values: Any, source: str = "params.yaml") -> Params:
    """Check a mapping of sections."""
    if not isinstance(values, dict):
        raise UsageError(f"{source}: expected sections ({', '.join(SECTIONS)}), found {type(values).__name__}")
    _check_keys(values, Params(), source, "")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{source}: {place}: {first['msg']} (found {first['input']!r})") from error


def _check_keys(values: dict[str, Any], owner: Any, source: str, place: str) -> None:
    """Dataclasses ignore unknown keys in pydantic, so names are compared here, all the way down."""
    if dataclasses.is_dataclass(owner):
        known = [field.name for field in dataclasses.fields(owner)]
    else:
        known = list(type(owner).model_fields)
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {place}{near[0]}?" if near else f"; known: {', '.join(known)}"
            raise UsageError(f"{source}: unknown key {place}{key}{hint}")
        inner = getattr(owner, key)
        if isinstance(value, dict) and (dataclasses.is_dataclass(inner) or isinstance(inner, BaseModel)):
            _check_keys(value, inner, source, f"{place}{key}.")
