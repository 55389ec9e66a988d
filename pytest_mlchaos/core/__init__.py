"""Pure data and decisions. This folder imports only the standard library."""
