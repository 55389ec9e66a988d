"""A feature pipeline in front of a model: a table is read, and its columns become the model's inputs."""
