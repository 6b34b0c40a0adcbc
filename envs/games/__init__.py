"""Games, and exact answers about them."""
