"""Containers where nothing is ready: a private Docker engine, and stand-ins for images that can't be pulled."""
