"""What every stage stands on: settings, files, errors, the device."""
