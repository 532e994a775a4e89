"""The pure core: what a policy is and how it becomes a decision. Standard library only."""
