"""All that a release holds, made and checked without publishing anything."""
