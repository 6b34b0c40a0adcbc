"""kappahop: decentralised multi-agent reinforcement learning as it would run on an edge network."""
