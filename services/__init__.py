"""The services, one package a domain; none imports another."""
