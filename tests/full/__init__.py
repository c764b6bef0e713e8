"""Everything that takes long, part by part, so that a run that was ended goes on where it was."""
