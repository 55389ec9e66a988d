"""Judge whether a model treats groups alike, and whether a fault harms one of them more."""
