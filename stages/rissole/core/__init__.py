"""What can change a number of any stage: settings, file formats, seeds, precision, threads."""
