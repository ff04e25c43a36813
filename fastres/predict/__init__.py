"""What is in these images: the likeliest classes of any."""
