"""`python -P -m headstart`, and what torchrun starts."""

from headstart.cli import main

if __name__ == "__main__":
    main()
