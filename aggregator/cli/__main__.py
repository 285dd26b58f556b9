"""`python -m aggregator.cli`: the command line where its entry point is not installed, as in the image."""

from aggregator.cli.main import main

if __name__ == "__main__":
    main()
