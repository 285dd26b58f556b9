"""From links and decisions to proposals."""
