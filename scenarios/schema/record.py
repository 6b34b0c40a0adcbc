"""The sections `record` and `evaluation`: what a run writes, and how its team is judged."""

from scenarios.schema.base import Section, setting


class Record(Section):
    """What a run writes besides its database."""

    tensorboard: bool = setting(True, "Write TensorBoard events.")
    wandb: bool = setting(False, "Write a Weights & Biases run, offline; needs the extra `wandb`.")
    mlflow: bool = setting(False, "Write an MLflow run, into files; needs the extra `mlflow`.")
    sinks: tuple[str, ...] = setting(
        (), "Further sinks by registered name, which take the same scalars (`kappahop list plugins`)."
    )
    checkpoint_rounds: int = setting(0, "Write all weights every so many rounds; 0: at the end only.", unit="rounds", ge=0)
    state_rounds: int = setting(
        10,
        "Write all that `kappahop resume` needs every so many rounds, keeping the last two; 0: never. In virtual time only.",
        unit="rounds",
        ge=0,
    )


class Evaluation(Section):
    """Judging the team while it trains: the policies of a round play episodes of their own, from which nothing is learnt."""

    every_rounds: int | None = setting(
        None,
        "Every how many rounds, and after the last; 0: never; null: so seldom that it takes at most about 5 % of the run's "
        "processor time (on the wall clock never).",
        unit="rounds",
        ge=0,
    )
    episodes: int = setting(
        4,
        "Episodes each time. After the last round ten times as many, and as many again for the best policies if those are "
        "earlier ones.",
        unit="episodes",
        ge=1,
        le=400,
    )
    deterministic: bool | None = setting(
        None,
        "Whether policies take their mean or likeliest action, or draw their actions as in training. null: they draw where the "
        "world's cost has a limit. An agent that acts by values of actions takes the best action either way.",
    )

    def draws(self, *, limited: bool) -> bool:
        """Whether policies draw their actions, in a world whose costs have limits or have none."""
        return limited if self.deterministic is None else not self.deterministic
