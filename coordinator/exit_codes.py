"""What the command's exit codes mean; 0: all is well."""

EXIT_FAILED = 1  # something broke in the run
EXIT_INPUT = 2  # what was asked for cannot be done
EXIT_DIVERGED = 3  # numbers are no longer finite
EXIT_INTERRUPTED = 130  # as shells have it for Ctrl-C
