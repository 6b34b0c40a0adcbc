"""Joints, partitions and the graphs that follow from them."""

import networkx as nx
import pytest

from envs.registry import section, spec
from envs.robots.partitions import Channel
from envs.robots.settings import Robot
from envs.robots.tasks import TASKS, senses


def graph_of(name: str, partition: str) -> nx.Graph:
    shape = spec(section(name, partition=partition))
    graph = nx.empty_graph(shape.n_agents)
    graph.add_edges_from(shape.edges)
    return graph


HIPS = {(0, 2), (0, 4), (0, 6), (2, 4), (2, 6), (4, 6)}


def test_agent_graph(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, str, set[tuple[int, int]], int]] = [
        ("safe_ant", "2x4", {(0, 1)}, 1),
        ("safe_ant", "2x4d", {(0, 1)}, 1),
        ("safe_ant", "4x2", set(nx.complete_graph(4).edges), 1),
        ("safe_ant", "8x1", HIPS | {(0, 1), (2, 3), (4, 5), (6, 7)}, 3),
        ("safe_halfcheetah", "2x3", {(0, 1)}, 1),
        ("safe_halfcheetah", "3x2", {(0, 1), (1, 2)}, 2),
        ("safe_halfcheetah", "6x1", {(0, 1), (1, 2), (0, 3), (3, 4), (4, 5)}, 5),
        ("safe_manyagent_ant", "2x3", {(0, 1)}, 1),
        ("safe_manyagent_ant", "3x2", set(nx.path_graph(3).edges), 2),
        ("safe_manyagent_ant", "6x1", set(nx.path_graph(6).edges), 5),
        ("safe_manyagent_ant", "2x4", {(0, 1)}, 1),
        ("safe_manyagent_ant", "4x2", set(nx.path_graph(4).edges), 3),
        ("safe_manyagent_ant", "8x1", set(nx.path_graph(8).edges), 7),
        ("velocity_ant", "8x1", HIPS | {(0, 1), (2, 3), (4, 5), (6, 7)}, 3),
        ("velocity_halfcheetah", "3x2", {(0, 1), (1, 2)}, 2),
        ("mamujoco_ant", "8x1", HIPS | {(0, 1), (2, 3), (4, 5), (6, 7)}, 3),
        ("mamujoco_halfcheetah", "6x1", {(0, 1), (1, 2), (0, 3), (3, 4), (4, 5)}, 5),
        ("mamujoco_walker2d", "2x3", {(0, 1)}, 1),
        ("mamujoco_walker2d", "3x2", set(nx.path_graph(3).edges), 2),
        ("mamujoco_walker2d", "6x1", set(nx.path_graph(6).edges), 5),
        ("mamujoco_hopper", "3x1", set(nx.path_graph(3).edges), 2),
        ("mamujoco_swimmer", "2x1", {(0, 1)}, 1),
        ("mamujoco_humanoid", "9|8", {(0, 1)}, 1),
    ]
    for name, partition, edges, diameter in rows:
        with subtests.test(name=name, partition=partition):
            graph = graph_of(name, partition)
            assert set(graph.edges) == edges
            assert nx.diameter(graph) == diameter


def test_neighbourhoods_have_the_tabled_sizes(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, str, list[list[int]]]] = [
        ("safe_ant", "8x1", [[5, 2] * 4, [8, 5] * 4, [8] * 8]),
        ("safe_halfcheetah", "6x1", [[3, 3, 2, 3, 3, 2]]),
        ("safe_halfcheetah", "3x2", [[2, 3, 2], [3, 3, 3]]),
        ("mamujoco_walker2d", "6x1", [[2, 3, 3, 3, 3, 2], [3, 4, 5, 5, 4, 3], [4, 5, 6, 6, 5, 4]]),
        ("mamujoco_hopper", "3x1", [[2, 3, 2], [3, 3, 3]]),
    ]
    for name, partition, sizes in rows:
        with subtests.test(name=name, partition=partition):
            graph = graph_of(name, partition)
            for kappa, expected in enumerate(sizes, start=1):
                assert [len(nx.ego_graph(graph, i, kappa)) for i in graph] == expected


def test_partition_deals_every_joint_once(subtests: pytest.Subtests) -> None:
    for name, partition in [(name, partition) for name, task in TASKS.items() for partition in task.partitions]:
        with subtests.test(name=name, partition=partition):
            robot, deal = TASKS[name].robots[partition], TASKS[name].partitions[partition]
            dealt = [joint for own in deal for joint in own]
            assert sorted(dealt) == sorted(robot.joints) == sorted(robot.motors)
            if "x" not in partition:
                assert [len(own) for own in deal] == {"9|8": [9, 8], "1p1": [6, 6]}[partition]
                continue
            agents, per_agent = partition.rstrip("d").split("x")
            assert len(deal) == int(agents)
            assert len({len(own) for own in deal}) == 1
            if name != "safe_manyagent_ant":
                assert len(deal[0]) == int(per_agent)


def test_graph_of_the_humanoids_joints_has_the_published_figures() -> None:
    graph = graph_of("mamujoco_humanoid", "17x1")
    assert (graph.number_of_edges(), nx.diameter(graph)) == (51, 4)
    for kappa, least, most in ((1, 3, 13), (2, 6, 17), (3, 14, 17)):
        sizes = [len(nx.ego_graph(graph, i, kappa)) for i in graph]
        assert (min(sizes), max(sizes)) == (least, most)


def test_humanoid_is_cut_at_the_waist() -> None:
    upper, lower = TASKS["mamujoco_humanoid"].partitions["9|8"]
    assert {"abdomen_x", "left_elbow", "right_shoulder2"} <= set(upper)
    assert {"right_hip_z", "left_knee"} <= set(lower)


def test_named_partitions() -> None:
    assert TASKS["mamujoco_walker2d"].partitions["3x2"][1] == ("thigh_joint", "thigh_left_joint")
    assert TASKS["safe_halfcheetah"].partitions["3x2"] == (("bfoot", "bshin"), ("bthigh", "ffoot"), ("fshin", "fthigh"))
    assert TASKS["safe_ant"].partitions["2x4d"][0] == ("hip_1", "ankle_1", "hip_3", "ankle_3")
    assert TASKS["safe_manyagent_ant"].partitions["3x2"][1][0] == "hip1_2"


def test_own_observation_names_own_joints_only() -> None:
    senses_of_shin = senses(Robot(partition="6x1"))[1]
    assert senses_of_shin[:2] == (Channel("qpos", "bshin"), Channel("qvel", "bshin"))
    assert not {"bthigh", "bfoot", "fthigh", "fshin", "ffoot"} & {channel.name for channel in senses_of_shin}
    assert "rootx" not in {channel.name for channel in senses_of_shin if channel.field == "qpos"}


def test_reference_sees_of_a_six_segment_ant_only_nine_numbers() -> None:
    seen = senses(Robot(name="safe_manyagent_ant", partition="6x1", observation="reference"))[0]
    assert [channel.name for channel in seen] == ["root"] * 7 + ["x/5", "y_off"]
