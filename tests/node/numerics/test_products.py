"""Same numbers, same bytes: wherever in memory an array lies, and however its columns were named.

`Shifted` is the probe. While it is on, every operation of torch that makes new arrays gets its arguments at addresses of our
choice; so do all products of forward and backward passes, whoever starts them. A run's arrays lie somewhere else each time.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from node.learners.model_based.world_model import WorldModel
from node.learners.off_policy.action_values import Samples
from node.learners.off_policy.learner import OffPolicyLearner
from node.learners.off_policy.mixer import Team
from node.learners.on_policy.learner import Learner
from node.numerics import products
from node.numerics.critics import Critics, Shape
from node.numerics.rollout import Rollout
from scenarios.schema import Algorithm
from tests import builders
from topology.snapshot import State

pytestmark = pytest.mark.exact

LINE = 64  # bytes of a cache line, and of the widest registers
SHIFTS = range(4, LINE, 4)
T, E, D, A = 6, 4, 13, 3
Floats = NDArray[np.float32]


# --- the probe ------------------------------------------------------------------------------------------------------------


def placed(array: NDArray[Any], shift: int) -> NDArray[Any]:
    """A copy whose first byte lies `shift` bytes after a cache line begins, or as near as its numbers allow."""
    shift -= shift % array.itemsize
    memory = np.zeros(array.nbytes + 2 * LINE, np.uint8)
    start = -memory.ctypes.data % LINE + shift
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert copy.ctypes.data % LINE == shift
    return copy


def moved(tensor: Tensor, shift: int) -> Tensor:
    """The same numbers with the same strides at a shifted address."""
    strides = tensor.stride()
    if not tensor.numel() or any(stride == 0 for stride in strides):
        return tensor  # empty, or one number shown as many
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True))
    flat = placed(tensor.detach().as_strided((extent,), (1,)).numpy(), shift)
    return torch.from_numpy(flat).as_strided(tensor.shape, strides)


class Shifted(TorchDispatchMode):
    """Moves the arguments of every operation that writes new arrays only; each argument by a shift of its own.

    Args:
        shift: Bytes by which the first argument is moved; the next ones are moved by one number more each.
    """

    def __init__(self, shift: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shift = shift
        self.products = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        schema = operation._schema
        if schema.is_mutable or any(value.alias_info is not None for value in schema.returns):
            return operation(*arguments, **(named or {}))
        self.products += any(word in schema.name for word in ("mm", "mv", "dot", "linear"))
        place = self._shift

        def move(value: Any) -> Any:
            nonlocal place
            if isinstance(value, list):
                return [move(part) for part in value]
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            place += 4
            return moved(value, place % LINE)

        return operation(*[move(value) for value in arguments], **(named or {}))


def everywhere(compute: Callable[[Callable[[Floats], Floats]], Any], n_products: int) -> None:
    """`compute` returns the same bytes wherever its arrays lie: those that it places by the function given, and torch's."""
    expected = flat(compute(partial(placed, shift=0)))
    assert expected
    for shift in SHIFTS:
        with Shifted(shift) as probe:
            found = flat(compute(partial(placed, shift=shift)))
        assert found.keys() == expected.keys()
        differing = [name for name in expected if found[name] != expected[name]]
        assert not differing, f"shifted by {shift} bytes: {differing}"
        assert probe.products >= n_products, "the probe saw no products"


def flat(found: Any, name: str = "") -> dict[str, bytes]:
    """Bytes by path."""
    if isinstance(found, Mapping):
        return {key: value for part in found for key, value in flat(found[part], f"{name}/{part}").items()}
    if isinstance(found, list | tuple):
        return {key: value for place, part in enumerate(found) for key, value in flat(part, f"{name}/{place}").items()}
    if isinstance(found, Tensor):
        return {name: found.detach().contiguous().numpy().tobytes()}
    return {name: found.tobytes() if isinstance(found, np.ndarray | np.generic) else repr(found).encode()}


# --- what an agent computes ---------------------------------------------------------------------------------------------------


def shape(**sizes: Any) -> Shape:
    usual = {"steps": T, "copies": E, "rounds": 10, "width": D, "act_dim": A, "cost_limits": (1.0,)}
    return builders.shape(**usual | sizes)


def algorithm(name: str = "scal_mappo_l", **settings: Any) -> Algorithm:
    usual = {"hidden": (33, 16), "epochs": 1, "minibatches": 2, "chunk": 13, "input_norm": "running"}
    return Algorithm.model_validate({"name": name} | usual | settings)


def rollout(put: Callable[[Floats], Floats], *, n_discrete: int = 0) -> Rollout:
    """A round of random observations, actions, rewards and costs; one episode ends in it."""
    draw = np.random.default_rng(0)

    def normal(*size: int) -> Floats:
        return put(draw.normal(size=size).astype(np.float32))

    action = put(draw.integers(n_discrete, size=(T, E, 1)).astype(np.float32)) if n_discrete else normal(T, E, A)
    over = np.zeros((T, E), np.bool_)
    over[T // 2, 1] = True
    told = Rollout(normal(T, E, D), action, normal(T, E), normal(T, E, 1), np.zeros_like(over), over)
    told.cut_observation = normal(len(told.cuts()), D)
    return told


def used_up(steps: Iterator[Any]) -> None:
    for _ in steps:
        pass


def learnt(put: Callable[[Floats], Floats], settings: Algorithm, **sizes: Any) -> tuple[State, Any]:
    """An on-policy learner after a round, and all it says of it."""
    one = Learner(shape(**sizes), settings)
    told = rollout(put, n_discrete=sizes.get("n_discrete", 0))
    one.begin_round(0)
    actions = [one.act(step, told.observation[step]) for step in range(T)]
    earlier = [put(np.random.default_rng(1).normal(0, 0.1, T * E).astype(np.float32))]
    used_up(one.learn_values(0, told, told.reward))
    used_up(one.learn_policy(told, earlier))
    metrics = one.end_round(told)
    return one.state(), (actions, one.log_ratio(), dict(metrics))


@pytest.mark.parametrize("layers", [{"activation": "relu"}, {"activation": "tanh", "layer_norm": True, "input_norm": "layer"}])
@pytest.mark.parametrize("copies", [1, E])
def test_forward_passes(copies: int, layers: dict[str, Any]) -> None:
    settings = algorithm(**layers)

    def act(put: Callable[[Floats], Floats]) -> Any:
        one = Learner(shape(copies=copies), settings)
        one.begin_round(0)
        return [one.act(step, put(observation)) for step, observation in enumerate(rollout(put).observation[:, :copies])]

    everywhere(act, 3 * T)


@pytest.mark.parametrize("sizes", [{}, {"n_discrete": 5, "act_dim": 1}], ids=["continuous", "choices"])
def test_learning_and_critics(sizes: dict[str, Any]) -> None:
    everywhere(lambda put: learnt(put, algorithm(), **sizes), 30)


def test_a_central_critic() -> None:
    settings = algorithm()

    def learn(put: Callable[[Floats], Floats]) -> Any:
        critics, told = Critics(shape(), settings), rollout(put)
        critics.begin(told)
        estimates = critics.advantages(told, told.reward)
        critics.adopt(estimates)
        used_up(critics.train(torch.arange(T * E).split(20)))
        critics.end(told)
        return critics.state(), [[each.advantage, each.returns] for each in estimates]

    everywhere(learn, 20)


@pytest.mark.parametrize("name", ["hatrpo", "macpo"])
def test_trust_regions_with_their_fisher_products(name: str) -> None:
    everywhere(lambda put: learnt(put, algorithm(name)), 100)


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ({"n_discrete": 5, "act_dim": 1}, {}),
        ({"n_discrete": 5, "act_dim": 1}, {"representation": "recurrent"}),
        ({"n_discrete": 0}, {}),
    ],
    ids=["choices", "recurrent", "continuous"],
)
def test_values_of_actions(sizes: dict[str, Any], settings: dict[str, Any]) -> None:
    usual = {"batch": 33, "warm_up_steps": 0, "updates_per_step": 0.2}
    its = algorithm("iql", off_policy=usual | settings)

    def learn(put: Callable[[Floats], Floats]) -> Any:
        one = OffPolicyLearner(shape(cost_limits=(), **sizes), slice(0, 4), its)
        told = rollout(put, n_discrete=sizes["n_discrete"])
        one.begin_round(0, explore=False)
        actions = [one.act(step, told.observation[step]) for step in range(T)]
        used_up(one.learn_values(0, told, told.reward))
        return actions, one.end_round(told), one.state()

    everywhere(learn, 50)


def test_the_mixer_of_qmix() -> None:
    n, n_discrete = 3, 4
    settings = algorithm("qmix", off_policy={"batch": 33, "warm_up_steps": 0})

    def learn(put: Callable[[Floats], Floats]) -> Any:
        draw = np.random.default_rng(0)
        team = Team([4, 4, 5], [n_discrete] * n, settings, seed=0)
        team.take(samples(put, draw.integers(n_discrete, size=(T * E, n))))
        team.learn(4, draw)
        return team.state(), dict(team.weights())

    everywhere(learn, 20)


def samples(put: Callable[[Floats], Floats], action: NDArray[Any]) -> Samples:
    told = rollout(put)
    return Samples(
        observation=told.observation.reshape(T * E, D), action=put(action.astype(np.float32)), reward=told.reward.reshape(-1),
        following=told.following().reshape(T * E, D), terminated=told.terminated.reshape(-1),
        is_first=np.zeros(T * E, np.bool_),
    )  # fmt: skip


def test_a_world_model() -> None:
    settings = algorithm("mdpo", world_model={"hidden": [33, 32], "latent": 5, "batch": 30})

    def learn(put: Callable[[Floats], Floats]) -> Any:
        draw = np.random.default_rng(0)
        model = WorldModel(shape(act_dim=1, n_discrete=4, cost_limits=()), settings)
        told = samples(put, draw.integers(4, size=(T * E, 1)))
        model.take(told, draw)
        used_up(model.fit(draw))
        return model.state(), model.step(told.observation, told.action, draw)

    everywhere(learn, 50)


# --- numpy ----------------------------------------------------------------------------------------------------------------


def test_products_of_numpy() -> None:
    """As worlds compute them, thick and thin: numpy has a library of its own, which has no such mode."""
    draw = np.random.default_rng(0)
    pairs = [
        (draw.normal(size=(a, b)), draw.normal(size=(b, c)))
        for a in (1, 7, 10, 64)
        for b in (1, 5, 20, 129)
        for c in (1, 3, 20, 65)
    ]

    def compute(put: Callable[[Any], Any]) -> Any:
        found = []
        for kind in (np.float64, np.float32):
            for one, other in pairs:
                left, right = put(one.astype(kind)), put(other.astype(kind))
                found += [left @ right, left[0] @ right, left @ right[:, 0], left[0] @ right[:, 0], left.T @ left]
                found += [
                    np.exp(left),
                    np.tanh(left),
                    left.sum(),
                    left.mean(axis=0),
                    left.std(),
                    np.einsum("ek,ek->e", left, left),
                ]
        return found

    expected = flat(compute(partial(placed, shift=0)))
    for shift in SHIFTS:
        assert flat(compute(partial(placed, shift=shift))) == expected


# --- how columns are named ----------------------------------------------------------------------------------------------------


def test_columns_picked_by_number_lie_in_memory_like_all_of_them() -> None:
    """numpy lays them out transposed, and then products, and even sums, round differently."""
    whole, named = shape(), shape(actor_columns=np.arange(D), critic_columns=np.arange(D))
    observation = rollout(lambda array: array).observation
    for pick in (Shape.for_actor, Shape.for_critics):
        for part in (observation, observation[0]):
            assert pick(named, part).strides == pick(whole, part).strides == (4 * D, 4)
            np.testing.assert_array_equal(pick(named, part), part.reshape(-1, D))


# --- the mode ------------------------------------------------------------------------------------------------------------------

# all that is mended is out: MKL as it comes, with the kernels of an older processor, which look at addresses on every machine
BARE = {"MKL_CBWR": "", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


def python(source: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    root = Path(__file__).parents[3]
    settings = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"} | {"PYTHONPATH": str(root)} | environment
    return subprocess.run(
        [sys.executable, "-c", source], env=settings, cwd=root, capture_output=True, text=True, timeout=100, check=False
    )


needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch multiplies without MKL here")


@needs_mkl
def test_without_the_mode_the_same_probe_finds_different_bytes() -> None:
    source = """
import torch
from tests.node.numerics.test_products import SHIFTS, Shifted
draw = torch.Generator().manual_seed(0)
observations, weights = torch.randn(10, 26, generator=draw), torch.randn(64, 26, generator=draw)
found = set()
for shift in (0, *SHIFTS):
    with Shifted(shift):
        both = torch.stack([weights @ observation for observation in observations]), observations[:1] @ weights.T
        found.add(b"".join(product.numpy().tobytes() for product in both))
print(len(found))
"""
    bare, mended = python(source, **BARE), python(source)
    assert int(bare.stdout) > 1, bare.stderr
    assert int(mended.stdout) == 1, mended.stderr


@needs_mkl
@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("import torch", "fine"),
        ("import torch; torch.ones(9, 9) @ torch.ones(9, 9)", "refused"),
    ],
    ids=["torch imported", "torch has multiplied"],
)
def test_a_process_whose_products_cannot_be_mended_makes_no_network(before: str, told: str) -> None:
    source = f"""
{before}
from tests.node.numerics.test_products import Learner, algorithm, shape
try:
    Learner(shape(), algorithm())
    print("fine")
except ValueError as error:
    assert "memory addresses" in str(error)
    print("refused")
"""
    done = python(source)
    assert done.stdout.strip() == told, done.stderr


@needs_mkl
def test_an_empty_setting_is_told_and_a_chosen_mode_is_kept() -> None:
    source = "from node.numerics import products\nprint(products.mode())\nproducts.check()"
    empty = python(source, MKL_CBWR="")
    assert "MKL_CBWR is empty" in empty.stderr
    assert python(source, MKL_CBWR="COMPATIBLE").stdout == "3\n"
    assert products.mode() != 1
