"""The web page: rendered on the server, a thin door over the services."""
