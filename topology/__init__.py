"""Which agents are connected and how: graphs, neighbourhoods, wire format, links, ledger."""
