"""From the annotation files of a data set to the manifest, one module per set."""
