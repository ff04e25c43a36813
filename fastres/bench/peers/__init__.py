"""The same work done by other libraries, each as fast as we could make it."""
