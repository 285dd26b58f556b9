"""What keeps policies right after the day they were made: drift, policies on watch, enforcement; events of it all."""
