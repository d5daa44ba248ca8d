"""Examples of sagas. Each folder is independent of the others, and tests run each of them."""
