"""Sources of a stream: files, folders, cameras, network addresses, synthetic frames."""
