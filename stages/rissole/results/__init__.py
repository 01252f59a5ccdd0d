"""What was measured, what is asserted about it, and the pages that show both."""
