"""What the design gains over the algorithm as the paper writes it: both, and a clock."""
