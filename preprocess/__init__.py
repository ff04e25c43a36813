"""From a data set as it is published to packed files that training can trust."""
