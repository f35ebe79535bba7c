"""Media files: containers, decoding in a sandbox, resampling, log-mel, YUV. No torch here."""
