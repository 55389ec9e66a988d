"""Seven gardens train one model of iris flowers, and keep their measurements to themselves."""
