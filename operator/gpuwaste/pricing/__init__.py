"""What a GPU-hour costs, and who says so; an unknown price stays unknown."""
