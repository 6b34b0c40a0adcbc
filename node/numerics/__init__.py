"""Networks, estimates and samples: pure functions and small containers of numbers."""
