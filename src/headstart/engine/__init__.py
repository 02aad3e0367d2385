"""What a training stands on: device, processes, checkpoints, randomness, progress."""
