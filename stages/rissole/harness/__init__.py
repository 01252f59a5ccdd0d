"""What runs the stages and cannot change what they compute: no stage depends on it."""
