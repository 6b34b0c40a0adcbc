"""XML from strangers: no entities, no deep nests; tags without their namespaces."""

from collections.abc import Mapping
from xml.etree import ElementTree
from xml.parsers import expat

from topology.foreign import UnreadableError, told

MAX_DEPTH = 100  # yEd's pictures of nodes are ten deep


def root_of(data: bytes, what: str) -> ElementTree.Element:
    """The root element of a document.

    Args:
        data: The document.
        what: Name of the format, for errors.

    Raises:
        UnreadableError: it is not XML, has a DOCTYPE, or is nested too deep.
    """
    builder = ElementTree.TreeBuilder()
    depth = 0

    def doctype(*_: object) -> None:
        raise UnreadableError(f"has a DOCTYPE, expected {what} without one (entities are not expanded)")

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise UnreadableError(f"is nested more than {MAX_DEPTH} deep, expected {what}")
        builder.start(_local(tag), {_local(key): value for key, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(tag))

    parser = expat.ParserCreate(namespace_separator="|")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise UnreadableError(f"is not {what}: {told(error)}") from None
    return builder.close()


def _local(tag: str) -> str:
    return tag.rpartition("|")[2]
