"""Define faults of devices: memory, speed, and the device itself."""
