"""`python -m headstart`, which is what torchrun starts."""

from headstart.cli.commands import main

if __name__ == "__main__":
    main()
