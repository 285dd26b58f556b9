"""Telling others of events: a webhook of plain JSON, and Alertmanager."""
