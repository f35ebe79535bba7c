"""Published data sets, one file each: how its annotation files become a manifest, and how its answers are scored."""
