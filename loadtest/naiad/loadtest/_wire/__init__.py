"""Connections to the server: our own HTTP/2, and the gRPC library's."""
