"""The ground floor: files, cores, devices, memory of the machine, and the names of flags."""
