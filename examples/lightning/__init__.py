"""A Lightning trainer that resumes from its last checkpoint."""
