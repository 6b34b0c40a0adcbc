"""Road networks of SUMO (.net.xml): the agents are the traffic lights, the edges the roads between them.

A road leads from one light to another if a car can drive there without passing a third: junctions without a light between
them do not count. Its `length` is the shortest such way in metres. Roads within junctions, whose ids begin with ':', are
left out. A light may control several junctions; the connections of the file say which.
"""

import heapq
from collections import defaultdict
from xml.etree.ElementTree import Element

from topology.foreign import UnreadableError, number
from topology.graph.files.listed import Listed

Roads = dict[str, list[tuple[str, float]]]  # by junction: where its roads lead, and their lengths


def read(root: Element) -> Listed:
    """The graph of a SUMO net.

    Raises:
        UnreadableError: it has no traffic lights.
    """
    lights = list(dict.fromkeys(light.get("id", "") for light in root.iter("tlLogic")))
    if not lights:
        raise UnreadableError("has no traffic light (<tlLogic>), which are the agents of a road network")
    ends: dict[str, tuple[str, str]] = {}
    roads: Roads = defaultdict(list)
    for edge in root.findall("edge"):
        name, a, b = edge.get("id", ""), edge.get("from"), edge.get("to")
        if a is not None and b is not None and not name.startswith(":"):
            ends[name] = a, b
            roads[a].append((b, min((number(lane.get("length")) or 0.0 for lane in edge.findall("lane")), default=0.0)))
    junctions = {junction.get("id", ""): junction for junction in root.findall("junction")}
    controlled = {light: light for light in lights if light in junctions}  # by junction its light
    for connection in root.findall("connection"):
        light, road = connection.get("tl"), connection.get("from", "")
        if light in lights and road in ends:
            controlled[ends[road][1]] = light
    listed = Listed(is_directed=True)
    for light in lights:
        places = [junctions[name] for name, its in controlled.items() if its == light and name in junctions]
        xs, ys = ([value for place in places if (value := number(place.get(axis))) is not None] for axis in "xy")
        listed.add_node(light, {"x": sum(xs) / len(xs), "y": sum(ys) / len(ys)} if xs and ys else {})
    for junction, light in controlled.items():
        for other, length in _next_lights(junction, roads, controlled).items():
            if other != light:
                listed.add_edge(light, other, {"length": length})
    return listed


def _next_lights(start: str, roads: Roads, controlled: dict[str, str]) -> dict[str, float]:
    # shortest ways to lights that are reached before any other (Dijkstra, not beyond a light)
    found: dict[str, float] = {}
    seen = {start}
    heap = [(length, there) for there, length in roads.get(start, [])]
    heapq.heapify(heap)
    while heap:
        way, here = heapq.heappop(heap)
        if here in seen:
            continue
        seen.add(here)
        if here in controlled:
            found.setdefault(controlled[here], way)
            continue
        for there, length in roads.get(here, []):
            heapq.heappush(heap, (way + length, there))
    return found
