"""Containers where nothing is ready for them: a private Docker engine, and stand-ins for images that can't be pulled."""
