"""What a run leaves behind: its folder, its log, its pictures, and the mirror on Weights & Biases."""
