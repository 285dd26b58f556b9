"""What people say about rows, directions and addresses, and how it is shown."""
