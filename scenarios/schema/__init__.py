"""Every setting of a scenario, once: type, unit, default, allowed range, meaning; a module for each section.

This package and the settings of the worlds (which extend `Env` and live with them) are the only places where a setting is
defined. The JSON Schema that editors read (`kappahop schema`), the reference page (`docs/reference/settings.md`) and the error
messages are all made from them. `scenarios.loading` reads files into them.
"""

from scenarios.schema.algorithm import Algorithm, OffPolicy, WorldModel
from scenarios.schema.base import Item, Precision, Section, setting
from scenarios.schema.compute import Central, Compute, Device
from scenarios.schema.env import DEFAULT_WORLD, Env, OpaqueEnv
from scenarios.schema.network import (
    TRACE,
    Change,
    Churn,
    Codec,
    Crash,
    Delivery,
    Edge,
    LinkAttributes,
    Network,
    Outage,
    Part,
    Partition,
    RandomOutages,
    Slow,
    Span,
)
from scenarios.schema.record import Evaluation, Record
from scenarios.schema.rollout import Budget, Rollout
from scenarios.schema.root import Scenario, in_world
from scenarios.schema.supervision import Supervision
from scenarios.schema.topology import DelayFrom, RateFrom, Topology

__all__ = [
    "DEFAULT_WORLD",
    "TRACE",
    "Algorithm",
    "Budget",
    "Central",
    "Change",
    "Churn",
    "Codec",
    "Compute",
    "Crash",
    "DelayFrom",
    "Delivery",
    "Device",
    "Edge",
    "Env",
    "Evaluation",
    "Item",
    "LinkAttributes",
    "Network",
    "OffPolicy",
    "OpaqueEnv",
    "Outage",
    "Part",
    "Partition",
    "Precision",
    "RandomOutages",
    "RateFrom",
    "Record",
    "Rollout",
    "Scenario",
    "Section",
    "Slow",
    "Span",
    "Supervision",
    "Topology",
    "WorldModel",
    "in_world",
    "setting",
]
