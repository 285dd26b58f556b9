"""Who asks, and which part of a cluster they may see."""
