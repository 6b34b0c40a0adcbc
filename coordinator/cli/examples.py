"""Calls of the command as people make them, which each verb's help names."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "kappahop run quickstart",
        "kappahop run safe_halfcheetah_6x1 kappa=3 topology.kind=ring --seed 1",
        "kappahop run quickstart network.preset=uav-mesh --json",
    ),
    "resume": ("kappahop resume runs/RUN", "kappahop resume runs/RUN budget.env_steps=1_000_000"),
    "evaluate": (
        "kappahop evaluate runs/RUN --episodes 64",
        "kappahop evaluate runs/RUN network.preset=lte --film team.gif",
        "kappahop evaluate voltage_33 --policy droop",
    ),
    "sweep": (
        "kappahop sweep wireless_5x5 kappa=0,1,2 --in-process",
        "kappahop sweep lq_line20 topology.kind=line,ring,grid kappa=0..3 --seeds 0..9 --in-process",
    ),
    "compare": ("kappahop compare runs/SWEEP", "kappahop compare runs/A runs/B --training"),
    "report": ("kappahop report runs/SWEEP --out report.html",),
    "figures": ("kappahop figures runs/SWEEP --out paper/figures",),
    "watch": ("kappahop watch runs/RUN",),
    "export": ("kappahop export runs/SWEEP --format parquet --out tables",),
    "decay": ("kappahop decay runs/RUN",),
    "graph": ("kappahop graph safe_ant_8x1", "kappahop graph lq_line20 topology.kind=ring env.agents=12"),
    "links": ("kappahop links quickstart network.preset=lora-sf7",),
    "list": ("kappahop list", "kappahop list presets"),
    "new": ("kappahop new world my_world",),
    "check": ("kappahop check world wireless",),
    "schema": ("kappahop schema --markdown --section network",),
}


def epilog(verb: str) -> str | None:
    """The examples of a verb as the last lines of its help; None: it has none."""
    if verb not in EXAMPLES:
        return None
    return "Examples:\n\n" + "\n\n".join(f"`{line}`" for line in EXAMPLES[verb])
