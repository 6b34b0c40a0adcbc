"""The command `kappahop`, also as `python -m kappahop`."""

from coordinator.cli.app import main

if __name__ == "__main__":
    main()
