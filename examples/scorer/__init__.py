"""A credit scorer behind HTTP, which asks a feature store about the applicant."""
