"""kappahop: decentralised multi-agent reinforcement learning as it would run on an edge network.

    import kappahop as kh

    run = kh.run("quickstart", kappa=1, seed=0)
    run.returns(), run.traffic(kind="STATE")

Importing it is cheap: a name is loaded when it is first used. The import also asks MKL, with which torch multiplies, for products
that repeat to the last bit (decision 0019). MKL takes that request only before its first product. So import kappahop before torch
computes anything. Where it is too late, `in_process=True` is refused with a sentence; runs with processes are exact all the same.
"""

from typing import TYPE_CHECKING, Any

from coordinator.cli.guard import strangers

_STRANGERS = strangers()  # folders on the path that would be imported in place of ours
if not _STRANGERS:
    import node.numerics.products  # noqa: F401  (asks MKL; needs no torch)

if TYPE_CHECKING:
    from coordinator.evaluation.baselines import Played
    from coordinator.session import RunFailedError
    from coordinator.study.columns import Columns
    from coordinator.study.comparison import Comparison
    from kappahop.api import (
        Round,
        Run,
        Sweep,
        compare,
        evaluate,
        load_scenario,
        make_env,
        open_run,
        report,
        resume,
        run,
        sweep,
        to_pettingzoo,
    )
    from node.learners.policy import Policy
    from scenarios.loading import ScenarioError
    from scenarios.plugins import (
        register_metric,
        register_objective,
        register_preset,
        register_recipe,
        register_sink,
        register_world,
    )

__all__ = [
    "Columns",
    "Comparison",
    "Played",
    "Policy",
    "Round",
    "Run",
    "RunFailedError",
    "ScenarioError",
    "Sweep",
    "compare",
    "evaluate",
    "load_scenario",
    "make_env",
    "open_run",
    "register_metric",
    "register_objective",
    "register_preset",
    "register_recipe",
    "register_sink",
    "register_world",
    "report",
    "resume",
    "run",
    "sweep",
    "to_pettingzoo",
]

_ELSEWHERE = {
    "Columns": "coordinator.study.columns",
    "Comparison": "coordinator.study.comparison",
    "Played": "coordinator.evaluation.baselines",
    "Policy": "node.learners.policy",
    "RunFailedError": "coordinator.session",
    "ScenarioError": "scenarios.loading",
    "register_metric": "scenarios.plugins",
    "register_objective": "scenarios.plugins",
    "register_preset": "scenarios.plugins",
    "register_recipe": "scenarios.plugins",
    "register_sink": "scenarios.plugins",
    "register_world": "scenarios.plugins",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for (PEP 562).

    Raises:
        AttributeError: there is no such name.
        ImportError: another folder or module has the name of one of our packages; the text says where it is.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _STRANGERS:
        raise ImportError(_STRANGERS[0])
    from importlib import import_module

    value = getattr(import_module(_ELSEWHERE.get(name, "kappahop.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What is named here."""
    return sorted({*globals(), *__all__})
