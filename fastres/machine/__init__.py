"""What every command runs on: files, errors, devices, processes, the terminal, the doctor."""
