"""Networks that others trained, and what it takes to load them."""
