"""What is written down and read back: settings, run folders, names, versions. Imports no torch."""
