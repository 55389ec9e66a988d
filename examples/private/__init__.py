"""A training with differential privacy that dies and is started again."""
