"""fastres: staged fine-tuning of pretrained residual networks on small images, fast and trustworthy."""

__version__ = "0.1.0"
