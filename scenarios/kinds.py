"""The kinds of message: one row each, and the only list of them.

A row says what holds for a kind in every scenario: its number on the wire, its plane, the moment at which it is sent, the
settings that it follows, which recipes send it, and what it means. What depends on the graph and on sizes (which agents receive
it, how many numbers it has) is a row of `node.protocol.kinds`. The settings of links, the protocol, the runtime, the
central process, the forecast and the docs read these two tables.

The rows are in the order of a round. Over one link the messages at the end of a round leave in this order
(`node.protocol.machine`, rule 4), so the order must not change without a new wire version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Literal

from scenarios.recipes import Recipe

Plane = Literal["peer", "central", "world"]


class Kind(IntEnum):
    """The kinds, by their number on the wire."""

    STATE = 1
    RATIO = 2
    REWARD = 3
    BOOTSTRAP = 4
    RATIO_MB = 5
    SCORE = 6
    TOKEN = 7
    JOINT = 8
    ADVANTAGE = 9
    POLICY = 10
    PARAMETERS = 11
    SHARED = 12
    CONSENSUS = 13
    MULTIPLIER = 14
    SENSE = 16
    ACT = 17
    JOIN = 18
    READY = 19
    GO = 20


class Moment(Enum):
    """When in a round a kind is sent."""

    STEP = "every step"
    ROLLOUT_END = "when the rollout is complete"
    ANSWER = "when the central process has learnt"
    VALUES_END = "when the advantages are known"
    MINIBATCH = "every minibatch"
    POLICY_END = "when the policy has been updated"
    MEAN = "when the central process has all policies"
    ROUND_END = "between two rounds"


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds for a kind in every scenario.

    Attributes:
        plane: Who exchanges it: agents with each other, agents with the central process, agents with the world.
        moment: When it is sent.
        meaning: What it says, in one line.
        settings: Its key under `network.codec` and `network.delivery`; "" for the world plane, which has neither.
        exact: Whether it is float32 whatever the codec, because receivers must agree on every bit.
        sent_by: Whether agents that follow a recipe send it.
        only_with: The setting that it takes besides the recipe, "" for none.
    """

    plane: Plane
    moment: Moment
    meaning: str
    settings: str = ""
    exact: bool = False
    sent_by: Callable[[Recipe], bool] = lambda recipe: True
    only_with: str = ""


def _looks_beyond_itself(recipe: Recipe) -> bool:
    return bool({recipe.actor_scope, recipe.critic_scope} & {"khop", "global"})


FACTS: dict[Kind, Facts] = {
    Kind.STATE: Facts(
        "peer", Moment.STEP, "the sender's local state (its observation), to agents whose scope holds it", "state",
        sent_by=_looks_beyond_itself,
    ),
    Kind.BOOTSTRAP: Facts(
        "peer", Moment.ROLLOUT_END, "last observations of the rollout and of episodes cut by the time limit", "bootstrap",
        sent_by=lambda recipe: recipe.critic_scope != "local",
    ),
    Kind.REWARD: Facts(
        "peer", Moment.ROLLOUT_END, "the sender's rewards of the round, for the mean over a ball", "reward",
        only_with="algorithm.reward=khop_mean",
    ),
    Kind.JOINT: Facts(
        "central", Moment.ROLLOUT_END, "what the sender sensed, did and was paid in the round", "joint",
        sent_by=lambda recipe: recipe.critic_scope == "central",
    ),
    Kind.ADVANTAGE: Facts(
        "central", Moment.ANSWER, "advantages of the receiver's actions, from the central critic", "advantage",
        sent_by=lambda recipe: recipe.critic_scope == "central" and not recipe.is_led,
    ),
    Kind.POLICY: Facts(
        "central", Moment.ANSWER, "the weights that the receiver acts by from now on", "policy",
        sent_by=lambda recipe: recipe.is_led,
    ),
    Kind.SCORE: Facts(
        "peer", Moment.VALUES_END, "the sender's mean absolute advantage, for the order of updates", "score", exact=True,
        sent_by=lambda recipe: recipe.is_ranked,
    ),
    Kind.RATIO_MB: Facts(
        "peer", Moment.MINIBATCH, "log-ratios on one minibatch, to agents that learn at the same time", "ratio",
        sent_by=lambda recipe: recipe.is_coupled,
    ),
    Kind.RATIO: Facts(
        "peer", Moment.POLICY_END, "final log-ratios of an agent that has updated, to later agents", "ratio",
        sent_by=lambda recipe: recipe.factor != "none" and not recipe.is_coupled,
    ),
    Kind.TOKEN: Facts(
        "peer", Moment.POLICY_END, "the end of a turn, to the agent whose turn is next", "token", exact=True,
        sent_by=lambda recipe: recipe.order == "alternating",
    ),
    Kind.PARAMETERS: Facts(
        "central", Moment.POLICY_END, "the weights of the sender's policy, where all agents share one", "policy",
        sent_by=lambda recipe: recipe.critic_scope == "central" and not recipe.is_led,
        only_with="algorithm.share_policy=true",
    ),
    Kind.CONSENSUS: Facts(
        "peer", Moment.POLICY_END, "the weights of the sender's networks and its degree, to its neighbours", "consensus",
        sent_by=lambda recipe: recipe.consensus != "none",
    ),
    Kind.MULTIPLIER: Facts(
        "peer", Moment.POLICY_END, "the sender's multipliers and estimates of the mean cost, to its neighbours", "multiplier",
        exact=True,
        sent_by=lambda recipe: recipe.constraint not in ("none", "cpo"),
        only_with="algorithm.constraint_scope=consensus",
    ),
    Kind.SHARED: Facts(
        "central", Moment.MEAN, "the mean of all agents' weights", "policy",
        sent_by=lambda recipe: recipe.critic_scope == "central" and not recipe.is_led,
        only_with="algorithm.share_policy=true",
    ),
    Kind.JOIN: Facts("world", Moment.ROUND_END, "the node is ready for its first observation"),
    Kind.SENSE: Facts("world", Moment.STEP, "observation, reward, costs and end flags of one agent"),
    Kind.ACT: Facts("world", Moment.STEP, "the actions of one agent"),
    Kind.READY: Facts("world", Moment.ROUND_END, "the node has ended its round"),
    Kind.GO: Facts("world", Moment.ROUND_END, "all nodes have ended the round, and the next begins"),
}  # fmt: skip


def peer_kinds() -> tuple[Kind, ...]:
    """The kinds that agents exchange with each other and with the central process, in the order of a round."""
    return tuple(kind for kind, facts in FACTS.items() if facts.plane != "world")


def at(*moments: Moment) -> tuple[Kind, ...]:
    """The kinds between agents that are sent at these moments, in the order of a round.

    Example:
        >>> [kind.name for kind in at(Moment.ANSWER)]
        ['ADVANTAGE', 'POLICY']
    """
    return tuple(kind for kind in peer_kinds() if FACTS[kind].moment in moments)


def sent_by(recipe: Recipe) -> tuple[Kind, ...]:
    """The kinds that agents send because of their recipe, in the order of a round; what takes a setting besides is left out."""
    return tuple(kind for kind in peer_kinds() if FACTS[kind].sent_by(recipe) and not FACTS[kind].only_with)


def markdown() -> str:
    """The kinds as a table of Markdown, for the docs."""
    rows = ["| kind | plane | sent | says | settings |", "|---|---|---|---|---|"]
    for kind, facts in FACTS.items():
        settings = f"`network.delivery.{facts.settings}`" if facts.settings else "–"
        if facts.settings and not facts.exact:
            settings += f", `network.codec.{facts.settings}`"
        with_ = f" (`{facts.only_with}`)" if facts.only_with else ""
        rows.append(f"| {kind.name} | {facts.plane} | {facts.moment.value} | {facts.meaning}{with_} | {settings} |")
    return "\n".join(rows) + "\n"
