"""Pictures: images, videos and figures from arrays."""
