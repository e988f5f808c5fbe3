"""`python -m semel`: the same commands as `semel`."""

from semel.cli import main

if __name__ == "__main__":
    main(prog_name="semel")
