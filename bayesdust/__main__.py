"""`python -m bayesdust`: the command line."""

from bayesdust.cli import main

if __name__ == "__main__":
    main()
