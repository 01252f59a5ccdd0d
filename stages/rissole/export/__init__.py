"""A row's model as a folder to take away: what writes it, and the pipeline that travels in it."""
