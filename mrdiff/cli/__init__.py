"""The command line: one module a command, torch and Lightning imported as late as can be."""
