"""Where images come from; decoding, cropping, shards."""
