"""``python -m hercules_fast``: the command line without the console script."""

from hercules_fast.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
