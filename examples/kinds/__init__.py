"""Nine kinds of projects, each with the chaos test that its owner would write first."""
