"""What the machine has and keeps: files written whole or not at all, cores, devices, memory."""
