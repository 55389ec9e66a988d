"""Every state that a crash could leave a subject's storage in: seen in one golden run, put back, and resumed from."""
