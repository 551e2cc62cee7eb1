"""The stack without Docker: the same servers and the same configuration files as ordinary processes on 127.0.0.1."""
