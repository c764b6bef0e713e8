"""What happens when one of our own objects changes; each handler only checks the object or wakes the loop."""
