"""Pictures of plans and results."""
