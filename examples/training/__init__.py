"""What a training script needs besides a network: data, processes, checkpoints, and the loop itself."""
