"""A feature pipeline before a model: it reads a table, whose columns become the model's inputs."""
