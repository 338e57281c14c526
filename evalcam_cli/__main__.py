"""`evalcam` and `python -m evalcam_cli`."""

from evalcam_cli.cli.app import main

if __name__ == "__main__":
    main()
