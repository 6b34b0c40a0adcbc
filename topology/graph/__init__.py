"""Which agents are connected: graphs by name and from files, hop distances, routes, pictures."""
