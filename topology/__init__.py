"""Who is connected and how: graphs, neighbourhoods, wire format, links, ledger."""
