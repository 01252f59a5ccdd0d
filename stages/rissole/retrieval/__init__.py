"""Search among the train images, and who may be a neighbour."""
