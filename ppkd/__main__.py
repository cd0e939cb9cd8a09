"""``python -m ppkd``: the console command."""

from ppkd.cli import main

if __name__ == "__main__":
    main()
